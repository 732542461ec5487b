//! systemd's bus: one connection, on which calls go out without waiting for each other, and on which systemd tells what
//! happens to units. What it tells is kept as the level of each unit.

mod stopping;

use super::names::{Names, of_path, path_of};
use super::seen::{Said, Seen};
use super::unit::{Property, START_SECONDS, Value};
use crate::host::linux::turns::{Turn, Turns};
use futures_util::StreamExt;
use plat_model::Problem;
use plat_model::problem::codes;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::{Semaphore, mpsc, watch};
use zbus::message::Type;
use zbus::{Connection, DBusError, Message, MessageStream, ObjectPath, OwnedVariant, Variant};

const SERVICE: &str = "org.freedesktop.systemd1";
const PATH: &str = "/org/freedesktop/systemd1";
const MANAGER: &str = "org.freedesktop.systemd1.Manager";
const PROPERTIES: &str = "org.freedesktop.DBus.Properties";
/// The bus itself, and what it tells when somebody's name becomes another's.
const BUS: &str = "org.freedesktop.DBus";
const OWNER: &str = "NameOwnerChanged";
/// Of units and of services: what systemd says changed of them.
const INTERFACES: [&str; 2] = ["org.freedesktop.systemd1.Service", "org.freedesktop.systemd1.Unit"];
const NO_SUCH_UNIT: &str = "org.freedesktop.systemd1.NoSuchUnit";
pub const EXISTS: &str = "org.freedesktop.systemd1.UnitExists";

/// Calls under way at once: a bus allows 128 without an answer to each connection (`max_replies_per_connection` of
/// dbus-daemon(1)), refuses what is more, and does not count one as over because nobody waits for it any longer.
const CALLS: usize = 64;
/// Jobs of a kind under way at once. For each, systemd has its bus tell it whether the one who asked is still there, and a bus
/// does that 512 times for a connection (`max_match_rules_per_connection`); at the next, systemd leaves its bus and comes back to
/// nobody. So many have stops of what is given its time, as long as its release says, and those of what was killed or has ended.
const JOBS: usize = 128;
/// Starts under way at once. For each there is a mount ([`super::tmp`]) that systemd comes upon again and again with every
/// program that it starts meanwhile: of 32 at once, 500 took 1.8 times what systemd takes for them alone, of 8 they take 1.1.
const STARTS: usize = 8;
/// As many of them has one partition, which can hold each for the time that it has ([`super::unit::START_SECONDS`]): it takes 8
/// partitions with nothing but units that hang to have others wait for one of them.
const STARTS_SHARE: usize = 1;
/// Of what ends.
const SHARE: usize = 8;
/// Of stops: what is to be stopped all at once is not to wait in rows for what takes the time it was given. Four partitions can
/// have all turns by that, for as long as their releases say: whoever comes to none is stopped without ([`stopping`]).
const STOPS_SHARE: usize = 32;

/// A change of a property that is held back until somebody looks is a level, so one place is enough.
type Units = BTreeMap<String, watch::Sender<Seen>>;
/// How a job of a unit went, by the job's path.
type Job = (String, String);
/// Who waits for a job of which unit: several may at once, of whom each has a number.
type Waiting = (String, u64);

#[derive(Default)]
struct Told {
    units: Mutex<Units>,
    jobs: Mutex<BTreeMap<Waiting, mpsc::UnboundedSender<Job>>>,
}

/// Waits for a job; dropped, nobody does any more.
struct Waits<'a> {
    told: &'a Told,
    key: Waiting,
    done: mpsc::UnboundedReceiver<Job>,
}

impl<'a> Waits<'a> {
    fn new(told: &'a Told, unit: &str) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let key = (unit.to_owned(), NEXT.fetch_add(1, Ordering::Relaxed));
        let (send, done) = mpsc::unbounded_channel();
        lock(&told.jobs).insert(key.clone(), send);
        Self { told, key, done }
    }
}

impl Drop for Waits<'_> {
    fn drop(&mut self) {
        lock(&self.told.jobs).remove(&self.key);
    }
}

pub struct Bus {
    connection: Connection,
    names: Names,
    calls: Semaphore,
    starts: Turns,
    stops: Turns,
    ends: Turns,
    told: Arc<Told>,
}

/// What went wrong of a call.
pub enum Wrong {
    /// The name of the error that systemd answered, and its text.
    Answered(String, String),
    /// It was not executed in its time, and has been killed.
    Held,
    /// Nobody knows what became of it.
    Bus(String),
}

/// Errors that do not say whether what was asked has been done.
const UNANSWERED: [&str; 7] = [
    "org.freedesktop.DBus.Error.NoReply",
    "org.freedesktop.DBus.Error.Timeout",
    "org.freedesktop.DBus.Error.TimedOut",
    "org.freedesktop.DBus.Error.Disconnected",
    "org.freedesktop.DBus.Error.ServiceUnknown",
    "org.freedesktop.DBus.Error.NameHasNoOwner",
    "org.freedesktop.zbus.Error",
];

impl Wrong {
    pub fn is(&self, name: &str) -> bool {
        matches!(self, Self::Answered(answered, _) if answered == name)
    }

    /// SERVICE_START where systemd said so, UNREACHABLE where it may have done what it was told.
    pub fn problem(self, what: impl Into<String>) -> Problem {
        let (code, why) = match self {
            Self::Answered(name, text) => (codes::SERVICE_START, format!("systemd: {text} ({name})")),
            Self::Held => (codes::SERVICE_START, format!("something held it for {START_SECONDS} s before it began")),
            Self::Bus(why) => (codes::UNREACHABLE, format!("systemd's bus: {why}")),
        };
        Problem::new(code, what).because(why).fix("see `systemctl status` and the journal; it is tried again")
    }
}

impl From<zbus::Error> for Wrong {
    fn from(error: zbus::Error) -> Self {
        match error {
            zbus::Error::MethodError(name, text, _) => Self::Answered(name.to_string(), text.unwrap_or_default()),
            // What the bus answers itself when systemd does not.
            zbus::Error::FDO(error) if UNANSWERED.contains(&error.name().as_str()) => Self::Bus(error.to_string()),
            zbus::Error::FDO(error) => {
                let text = error.description().unwrap_or_default().to_owned();
                Self::Answered(error.name().to_string(), text)
            }
            other => Self::Bus(other.to_string()),
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Bus {
    /// Connects, and hears from now on of everything that happens to units. Names of units that have ended or were started
    /// again by systemd are sent to `over`; when that closes, the connection is lost, or systemd's own was.
    pub async fn connect(names: Names, over: mpsc::UnboundedSender<String>) -> Result<Self, Wrong> {
        let connection = Connection::system().await?;
        let mut stream = MessageStream::from(&connection);
        // Else systemd waits when many units change at once.
        stream.set_max_queued(std::num::NonZeroUsize::new(4096).unwrap_or(std::num::NonZeroUsize::MIN));
        let starts = Turns::new(STARTS, STARTS_SHARE);
        let [stops, ends] = [STOPS_SHARE, SHARE].map(|share| Turns::new(JOBS, share));
        let bus = Self { connection, names, calls: Semaphore::new(CALLS), starts, stops, ends, told: Arc::default() };
        let heard = bus.told.clone();
        tokio::spawn(async move {
            while let Some(Ok(message)) = stream.next().await {
                if is_another(&message) {
                    break;
                }
                heard.hear(&message, &over);
            }
            heard.close();
        });
        let base = format!("type='signal',sender='{SERVICE}'");
        let mut rules = vec![
            format!("{base},interface='{MANAGER}',member='JobRemoved'"),
            format!("type='signal',sender='{BUS}',member='{OWNER}',arg0='{SERVICE}'"),
        ];
        let of = |interface: &str| {
            format!(
                "{base},interface='{PROPERTIES}',member='PropertiesChanged',path_namespace='{PATH}/unit',arg0='{interface}'"
            )
        };
        rules.extend(INTERFACES.map(of));
        for rule in rules {
            bus.connection.call_method(Some(BUS), "/org/freedesktop/DBus", Some(BUS), "AddMatch", &rule).await?;
        }
        bus.call("Subscribe", &()).await?;
        Ok(bus)
    }

    async fn call<B>(&self, method: &str, body: &B) -> Result<Message, Wrong>
    where
        B: serde::Serialize + zbus::wire::DynamicType + Sync,
    {
        self.ask(PATH, MANAGER, method, body).await
    }

    async fn ask<B>(&self, path: &str, interface: &str, method: &str, body: &B) -> Result<Message, Wrong>
    where
        B: serde::Serialize + zbus::wire::DynamicType + Sync,
    {
        let _turn = self.calls.acquire().await.map_err(|why| Wrong::Bus(why.to_string()))?;
        Ok(self.connection.call_method(Some(SERVICE), path, Some(interface), method, body).await?)
    }

    /// The number of systemd's version.
    pub async fn version(&self) -> Result<u32, Wrong> {
        let ask = (MANAGER, "Version");
        let answer = self.ask(PATH, PROPERTIES, "Get", &ask).await?;
        let said: OwnedVariant = answer.body().deserialize()?;
        let text = String::try_from(said).unwrap_or_default();
        let digits: String =
            text.chars().skip_while(|c| !c.is_ascii_digit()).take_while(char::is_ascii_digit).collect();
        Ok(digits.parse().unwrap_or(0))
    }

    /// What was last told of a unit; nothing is known of one that this connection has neither started nor read.
    pub fn seen(&self, unit: &str) -> Option<Seen> {
        lock(&self.told.units).get(unit).map(|seen| seen.borrow().clone())
    }

    /// From now on all of the unit is told.
    fn follow(&self, unit: &str) -> watch::Receiver<Seen> {
        lock(&self.told.units).entry(unit.to_owned()).or_insert_with(|| watch::channel(Seen::default()).0).subscribe()
    }

    /// The unit is nobody's concern any more.
    pub fn leave(&self, unit: &str) {
        lock(&self.told.units).remove(unit);
    }

    /// What a unit is started with.
    pub async fn turn_to_start(&self, unit: &str) -> Result<Turn<'_>, Wrong> {
        turn(&self.starts, &self.whose(unit)).await
    }

    /// Starts a unit that is not there, and waits until its program is executed. What became of it.
    pub async fn start(
        &self,
        _turn: &Turn<'_>,
        unit: &str,
        properties: &[Property],
        output: Option<std::os::fd::OwnedFd>,
    ) -> Result<Seen, Wrong> {
        self.leave(unit);
        let seen = self.follow(unit);
        let output = output.map(zbus::OwnedFd::from);
        let mut told: Vec<(&str, Variant<'_>)> =
            properties.iter().map(|(name, value)| (*name, variant(value))).collect();
        for name in ["StandardOutputFileDescriptor", "StandardErrorFileDescriptor"] {
            told.extend(output.as_ref().map(|output| (name, Variant::Fd(zbus::Fd::from(output)))));
        }
        let none: [(&str, Vec<(&str, Variant<'_>)>); 0] = [];
        let went = self.job(unit, "StartTransientUnit", &(unit, "fail", told, &none[..])).await?;
        let now = seen.borrow().clone();
        if went == "failed" && now.was_killed_in_time() { Err(Wrong::Held) } else { Ok(now) }
    }

    /// Starts a unit that systemd knows, or can make of its name, if it does not run yet.
    pub async fn begin(&self, unit: &str) -> Result<(), Wrong> {
        self.job(unit, "StartUnit", &(unit, "replace")).await.map(drop)
    }

    /// Stops a unit that has ended or was killed, and waits until nothing of it is left. One that is not there is stopped.
    pub async fn stop(&self, unit: &str) -> Result<(), Wrong> {
        let _turn = turn(&self.ends, &self.whose(unit)).await?;
        self.stopped(unit).await
    }

    async fn stopped(&self, unit: &str) -> Result<(), Wrong> {
        match self.job(unit, "StopUnit", &(unit, "replace")).await {
            Err(wrong) if !wrong.is(NO_SUCH_UNIT) => Err(wrong),
            _ => Ok(()),
        }
    }

    /// Has a failed unit forgotten.
    pub async fn reset(&self, unit: &str) -> Result<(), Wrong> {
        absent_is_fine(self.call("ResetFailedUnit", &(unit,)).await)
    }

    /// Kills all processes of a unit.
    pub async fn kill(&self, unit: &str) -> Result<(), Wrong> {
        absent_is_fine(self.call("KillUnit", &(unit, "all", 9i32)).await)
    }

    /// Changes a unit until the machine is restarted.
    pub async fn set(&self, unit: &str, properties: &[Property]) -> Result<(), Wrong> {
        let told: Vec<(&str, Variant<'_>)> = properties.iter().map(|(name, value)| (*name, variant(value))).collect();
        self.call("SetUnitProperties", &(unit, true, told)).await.map(drop)
    }

    /// The names of loaded units that match, such as `plat-*.service`.
    pub async fn list(&self, pattern: &str) -> Result<Vec<String>, Wrong> {
        type Listed =
            (String, String, String, String, String, String, zbus::OwnedObjectPath, u32, String, zbus::OwnedObjectPath);
        let none: [&str; 0] = [];
        let answer = self.call("ListUnitsByPatterns", &(&none[..], &[pattern][..])).await?;
        let units: Vec<Listed> = answer.body().deserialize()?;
        Ok(units.into_iter().map(|unit| unit.0).collect())
    }

    /// Reads all of a loaded unit, and hears of it from now on.
    pub async fn read(&self, unit: &str) -> Result<Seen, Wrong> {
        self.follow(unit);
        let path = path_of(unit);
        for interface in INTERFACES {
            let answer = self.ask(&path, PROPERTIES, "GetAll", &(interface,)).await?;
            let all: BTreeMap<String, OwnedVariant> = answer.body().deserialize()?;
            self.told.take(unit, &all);
        }
        Ok(self.seen(unit).unwrap_or_default())
    }

    /// Waits until the unit's program has ended.
    pub async fn until_over(&self, unit: &str) -> Result<Seen, Wrong> {
        let mut seen = self.follow(unit);
        let over = seen.wait_for(|seen| !seen.state.is_empty() && seen.is_over()).await;
        over.map(|seen| seen.clone()).map_err(|_| Wrong::Bus("the connection was lost".into()))
    }

    /// Whose turns a unit takes: its partition's; what is none's, its own.
    fn whose(&self, unit: &str) -> String {
        self.names.partition_of(unit).map_or_else(|| unit.to_owned(), |partition| partition.to_string())
    }

    /// Queues a job of a unit, in its turn, and waits until it is done or has failed.
    async fn job<B>(&self, unit: &str, method: &str, body: &B) -> Result<String, Wrong>
    where
        B: serde::Serialize + zbus::wire::DynamicType + Sync,
    {
        // Before it is asked for: it may be done before that is answered.
        let mut waits = Waits::new(&self.told, unit);
        let answer = self.call(method, body).await?;
        let path: zbus::OwnedObjectPath = answer.body().deserialize()?;
        // Another's before it may be told too.
        while let Some((job, result)) = waits.done.recv().await {
            if job == path.as_str() {
                return Ok(result);
            }
        }
        Err(Wrong::Bus("the connection was lost".into()))
    }
}

async fn turn<'a>(turns: &'a Turns, who: &str) -> Result<Turn<'a>, Wrong> {
    let waits = || tracing::debug!(who, on = "a turn at systemd, which others have all of", "waiting");
    turns.take_after(who, waits).await.map_err(|why| Wrong::Bus(why.to_string()))
}

fn absent_is_fine(answer: Result<Message, Wrong>) -> Result<(), Wrong> {
    match answer {
        Err(wrong) if !wrong.is(NO_SUCH_UNIT) => Err(wrong),
        _ => Ok(()),
    }
}

/// Whether systemd has come back to the bus as another: it does not know any more who wanted to be told.
fn is_another(message: &Message) -> bool {
    let header = message.header();
    let is_of_names = header.member().is_some_and(|member| member.as_str() == OWNER)
        && header.sender().is_some_and(|sender| sender.as_str() == BUS);
    is_of_names
        && message
            .body()
            .deserialize::<(&str, &str, &str)>()
            .is_ok_and(|(name, _, new)| name == SERVICE && !new.is_empty())
}

impl Told {
    fn hear(&self, message: &Message, over: &mpsc::UnboundedSender<String>) {
        if message.message_type() != Type::Signal {
            return;
        }
        let header = message.header();
        match header.member().map(|member| member.as_str()) {
            Some("JobRemoved") => {
                let Ok((_, job, unit, result)) = message
                    .body()
                    .deserialize::<(u32, ObjectPath<'_>, &str, &str)>()
                    .map(|(id, job, unit, result)| (id, job.to_string(), unit.to_owned(), result.to_owned()))
                else {
                    return;
                };
                for (_, waiting) in lock(&self.jobs).range((unit.clone(), 0)..=(unit, u64::MAX)) {
                    let _ = waiting.send((job.clone(), result.clone()));
                }
            }
            Some("PropertiesChanged") => {
                let Some(unit) = header.path().and_then(|path| of_path(path.as_str())) else { return };
                let Some(before) = lock(&self.units).get(&unit).map(|seen| seen.borrow().clone()) else { return };
                let body = message.body();
                let Ok((interface, changed, _)) =
                    body.deserialize::<(String, BTreeMap<String, OwnedVariant>, Vec<String>)>()
                else {
                    return;
                };
                self.take(&unit, &changed);
                // The unit's own come after its service's, so now all of a change is known.
                let now = lock(&self.units).get(&unit).map(|seen| seen.borrow().clone()).unwrap_or_default();
                let again = !before.invocation.is_empty() && before.invocation != now.invocation;
                if interface == INTERFACES[1] && ((now.is_over() && !before.is_over()) || again) {
                    let _ = over.send(unit);
                }
            }
            _ => {}
        }
    }

    fn take(&self, unit: &str, changed: &BTreeMap<String, OwnedVariant>) {
        if let Some(seen) = lock(&self.units).get(unit) {
            seen.send_modify(|seen| {
                changed.iter().for_each(|(name, value)| said(value).iter().for_each(|said| seen.take(name, said)))
            });
        }
    }

    /// Nobody waits for what is told no more.
    fn close(&self) {
        lock(&self.jobs).clear();
        lock(&self.units).clear();
    }
}

fn said(value: &OwnedVariant) -> Option<Said> {
    Some(match &**value {
        Variant::Str(text) => Said::Text(text.to_string()),
        Variant::U32(number) => Said::Number((*number).into()),
        Variant::U64(number) => Said::Number(*number),
        Variant::I32(number) => Said::Signed(*number),
        Variant::Array(_) => Said::Bytes(value.try_clone().ok().and_then(|value| Vec::<u8>::try_from(value).ok())?),
        _ => return None,
    })
}

/// MS_REC of linux/mount.h.
const RECURSIVE: u64 = 1 << 14;

fn list(is_allowed: bool, names: Vec<&str>) -> Variant<'static> {
    Variant::from((is_allowed, names.into_iter().map(str::to_owned).collect::<Vec<_>>()))
}

fn variant(value: &Value) -> Variant<'static> {
    match value.clone() {
        Value::Flag(flag) => Variant::from(flag),
        Value::Signal(number) => Variant::from(number),
        Value::Word(number) => Variant::from(number),
        Value::Number(number) => Variant::from(number),
        Value::Text(text) => Variant::from(text),
        Value::Texts(texts) => Variant::from(texts),
        Value::Command(words) => {
            let path = words.first().cloned().unwrap_or_default();
            // Nothing in it is a variable to systemd.
            Variant::from(vec![(path, words, vec!["no-env-expand".to_owned()])])
        }
        Value::Allowed(names) => list(true, names),
        Value::Denied(names) => list(false, names),
        Value::Files(paths) => Variant::from(paths.into_iter().map(|path| (path, false)).collect::<Vec<_>>()),
        Value::Pairs(pairs) => Variant::from(pairs),
        Value::Binds(binds) => {
            let told = binds.into_iter().map(|bind| (bind.from, bind.to, !bind.is_needed, RECURSIVE));
            Variant::from(told.collect::<Vec<_>>())
        }
        Value::Fields(fields) => Variant::from(fields.into_iter().map(String::into_bytes).collect::<Vec<_>>()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a call that the bus answered with this error is taken for.
    fn of(name: &'static str) -> plat_model::Code {
        let call = Message::method_call("/org/freedesktop/systemd1", "Get").build(&()).unwrap();
        let error = Message::error(&call.header(), name).build(&"it is so").unwrap();
        Wrong::from(zbus::Error::from(error)).problem("it failed").code
    }

    #[test]
    fn what_systemd_refused_never_began_and_of_what_nobody_answered_nothing_is_known() {
        assert_eq!(of("org.freedesktop.systemd1.UnitExists"), codes::SERVICE_START);
        assert_eq!(of("org.freedesktop.DBus.Error.InvalidArgs"), codes::SERVICE_START);
        assert_eq!(of("org.freedesktop.DBus.Error.NoReply"), codes::UNREACHABLE);
        assert_eq!(Wrong::Bus("the connection was lost".into()).problem("it failed").code, codes::UNREACHABLE);
    }

    #[test]
    fn systemd_that_has_come_back_to_its_bus_is_another_and_one_that_left_is_none() {
        let told = |sender: &'static str, body: (&str, &str, &str)| {
            let signal = Message::signal("/org/freedesktop/DBus", BUS, OWNER);
            is_another(&signal.sender(sender).build(&body).unwrap())
        };
        assert!(told(BUS, (SERVICE, "", ":1.12")));
        assert!(told(BUS, (SERVICE, ":1.6", ":1.12")));
        assert!(!told(BUS, (SERVICE, ":1.6", "")));
        assert!(!told(BUS, ("org.freedesktop.login1", "", ":1.12")));
        assert!(!told(":1.7", (SERVICE, "", ":1.12")), "anybody can say so");
    }
}
