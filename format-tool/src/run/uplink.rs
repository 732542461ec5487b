//! The uplink's timed way back: a process of its own, apart from the terminal and the connection that may be lost, gives
//! the old network back unless the new one is confirmed. The record says what there is to give back, so that it is not
//! forgotten whoever is killed.

use super::{Exit, apart, journal, print, watches};
use crate::args::Args;
use node_format::{Applied, Epoch, LinuxHost, Record, roll_back};
use node_format_plan::thing::Uplink;
use node_format_plan::{Claims, Thing};
use plat_model::problem::{Problem, Problems, codes};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

/// How often the record is looked at while waiting.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// How long another run is waited for.
const BUSY_MAX: Duration = Duration::from_secs(120);

/// Between two attempts to give the old network back: the first pause, which doubles, and the longest.
const PAUSE_MIN: Duration = Duration::from_secs(1);
const PAUSE_MAX: Duration = Duration::from_secs(60);
/// How long that is tried.
const TRIED_FOR: Duration = Duration::from_secs(24 * 60 * 60);

/// The process that waits.
pub(super) struct Watch(Child);

impl Watch {
    /// # Errors
    /// If it cannot be started, or would end with what started it: then nothing may be taken.
    pub fn start(args: &Args, record: &Path, seconds: u64) -> Result<Self, Problem> {
        let broken =
            |e: std::io::Error| Problem::new(codes::PREREQUISITE, "nobody would give the old network back").because(e);
        let own = std::env::current_exe().map_err(broken)?;
        let mut command = apart::command(&own);
        command.arg("--root").arg(&args.root).args(args.links_gone.then_some("--links-gone"));
        command.args(["rollback", "--after", &seconds.to_string(), "--for", &std::process::id().to_string()]);
        // The configuration may be one that can be read but once.
        command.arg("--record").arg(record);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        // Whatever ends the session that started it, by a signal to its group, does not end it.
        command.process_group(0);
        let mut watch = command.spawn().map(Self).map_err(broken)?;
        match apart::is_apart(&mut watch.0, &own) {
            Ok(()) => Ok(watch),
            Err(problem) => {
                watch.stop();
                Err(problem)
            }
        }
    }

    fn stop(mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Whether there is anything to confirm that this watch waits for. One that has nothing to wait for ends here; a record that
/// cannot be read at the moment does not say so.
///
/// `failed`: the run has taken nothing that is not given back. What is unconfirmed is that of a run before, if somebody waits for that.
///
/// # Errors
/// If there is, and whoever was to wait for it has ended.
pub(super) fn settle(
    watch: Watch,
    host: &LinuxHost,
    record: &Path,
    epoch: &Epoch,
    failed: bool,
) -> Result<bool, Problem> {
    let mut watch = watch;
    if Record::read(&host.beneath_root(record), epoch).is_ok_and(|seen| unconfirmed(seen.claims()).next().is_none()) {
        watch.stop();
        return Ok(false);
    }
    // Whoever waits goes on until nothing is unconfirmed.
    if failed && watches::is_awaited_without(watch.0.id()) {
        watch.stop();
        return Ok(false);
    }
    match watch.0.try_wait() {
        Ok(Some(status)) => Err(Problem::new(codes::PREREQUISITE, "nobody waits to give the old network back")
            .because(format!("whoever was to wait for the confirmation has ended ({status})"))
            .fix("if the machine is reached, run `node-format confirm`; else `node-format rollback`")),
        _ => Ok(true),
    }
}

/// Interfaces that carried something and are taken without confirmation.
fn unconfirmed(claims: &Claims) -> impl Iterator<Item = &Uplink> {
    claims
        .iter()
        .filter_map(|thing| match thing {
            Thing::Uplink(uplink) if uplink.carries => Some(uplink),
            _ => None,
        })
        .filter(|uplink| !claims.has(&Thing::UplinkConfirmed { link: uplink.link.clone() }))
}

/// Interfaces that are taken and stay so.
fn confirmed(claims: &Claims) -> Vec<String> {
    let taken = claims.iter().filter_map(|thing| match thing {
        Thing::Uplink(uplink) => Some(uplink.link.clone()),
        _ => None,
    });
    taken.filter(|link| claims.has(&Thing::UplinkConfirmed { link: link.clone() })).collect()
}

/// `wanted`: the uplink of the configuration.
pub(super) fn confirm(host: &LinuxHost, path: &Path, epoch: &Epoch, wanted: Option<&str>) -> Result<Exit, Problems> {
    let seen = Record::read(&host.beneath_root(path), epoch)?;
    let taken = |thing: &Thing| matches!(thing, Thing::Uplink(uplink) if Some(uplink.link.as_str()) == wanted);
    if let Some(link) = wanted.filter(|_| !seen.claims().iter().any(taken)) {
        let problem =
            Problem::new(codes::UPLINK, format!("{link} is not on the bridge, so there is nothing to confirm"))
                .because("it was not confirmed in time and was given back, or it was never taken")
                .fix("see why the machine was not reached, then run `node-format apply --take-uplink` again");
        return Err(problem.into());
    }
    if unconfirmed(seen.claims()).next().is_none() {
        let text = wanted.map_or_else(
            || "nothing to confirm: no uplink is configured".into(),
            |link| format!("{link} is confirmed already"),
        );
        return print(&(text + "\n"));
    }
    let mut record = Record::open(&host.beneath_root(path), epoch)?;
    let pending: Vec<String> = unconfirmed(record.claims()).map(|uplink| uplink.link.clone()).collect();
    if pending.is_empty() {
        record.finish()?;
        return Err(Problem::new(codes::UPLINK, "there is nothing to confirm any more")
            .because("it was given back just now")
            .fix("see why the machine was not reached, then run `node-format apply --take-uplink` again")
            .into());
    }
    record.add(pending.iter().map(|link| Thing::UplinkConfirmed { link: link.clone() }))?;
    record.finish()?;
    print(&format!("{} stays on the bridge\n", pending.join(", ")))
}

/// How long to wait for a confirmation first, and for which run.
pub(super) struct Patience {
    pub seconds: u64,
    pub run: u32,
}

pub(super) fn rollback(
    host: &mut LinuxHost,
    path: &Path,
    epoch: &Epoch,
    after: Option<Patience>,
) -> Result<Exit, Problems> {
    let place = host.beneath_root(path);
    let Some(patience) = after else {
        return give_back(host, &place, epoch, || true).map(|exit| exit.unwrap_or(Exit::Done));
    };
    // A terminal that is lost is no reason to end; whoever ends this very process (SIGTERM) means it.
    apart::outlive_the_terminal()?;
    if !wait(&place, epoch, &patience) {
        return Ok(Exit::Done);
    }
    give_back_at_last(host, &place, epoch)
}

/// The machine may be reached by nothing else, and nobody may be able to say so: what fails is tried again, and told to
/// whoever keeps the machine's log.
fn give_back_at_last(host: &mut LinuxHost, place: &Path, epoch: &Epoch) -> Result<Exit, Problems> {
    let begun = Instant::now();
    let (mut pause, mut said) = (PAUSE_MIN, None);
    loop {
        // Whoever waits for a later run may be ended with it: then it is for this one to do.
        if !watches::is_last() {
            if is_still_pending(place, epoch, PAUSE_MIN) {
                continue;
            }
            return Ok(Exit::Done);
        }
        let problems = match give_back(host, place, epoch, watches::is_last) {
            Ok(None) => continue,
            Ok(Some(exit)) if said.is_none() => return Ok(exit),
            Ok(Some(exit)) => {
                journal::note(host, "the old network is back");
                return Ok(exit);
            }
            Err(problems) => problems,
        };
        let why: Vec<String> = problems.0.iter().map(Problem::one_line).collect();
        let why = why.join("; ");
        let over = begun.elapsed() > TRIED_FOR;
        if over || said.as_ref() != Some(&why) {
            let next = if over { "run `node-format rollback`" } else { "it is tried again" };
            journal::note(host, &format!("the old network cannot be given back, {next}: {why}"));
            said = Some(why);
        }
        if over {
            return Err(problems);
        }
        if !is_still_pending(place, epoch, pause) {
            journal::note(host, "there is no uplink to give back any more: somebody else saw to it");
            return Ok(Exit::Done);
        }
        pause = (pause * 2).min(PAUSE_MAX);
    }
}

/// Waits so long. False: somebody else gave the old network back or confirmed the new one meanwhile; whatever is taken next
/// is the business of another watch.
fn is_still_pending(place: &Path, epoch: &Epoch, pause: Duration) -> bool {
    let (begun, mut seen) = (Instant::now(), None);
    while begun.elapsed() < pause {
        let written = std::fs::metadata(place).and_then(|found| found.modified()).ok();
        let nothing = |record: Record| unconfirmed(record.claims()).next().is_none();
        if seen.replace(written) != Some(written) && Record::read(place, epoch).is_ok_and(nothing) {
            return false;
        }
        std::thread::park_timeout(LOOK_EVERY);
    }
    true
}

/// `mine`: whether it is for this process to do, once nobody else can change what is taken. `None`: a later run's uplink is
/// another watch's business.
fn give_back(
    host: &mut LinuxHost,
    place: &Path,
    epoch: &Epoch,
    mine: impl Fn() -> bool,
) -> Result<Option<Exit>, Problems> {
    if !Record::exists(place)? {
        return print("nothing to do: there is no record\n").map(Some);
    }
    let mut record = open_patiently(place, epoch)?;
    if !mine() {
        record.finish()?;
        return Ok(None);
    }
    let rolled = roll_back(host, &mut record);
    let confirmed = confirmed(record.claims());
    let finished = record.finish();
    let Applied { plan, excused } = rolled?;
    super::say_excused(&excused);
    let done = if plan.is_empty() && !confirmed.is_empty() {
        let links = confirmed.join(", ");
        print(&format!(
            "nothing to do: {links} is confirmed; take `uplink` out of the configuration and run `node-format apply` to \
             give it back\n"
        ))
    } else {
        print(&node_format_plan::render(&plan, node_format_plan::Detail::Things))
    };
    // What was done is said first.
    finished?;
    done.map(Some)
}

/// Waits until the run has taken an uplink and then for so long. False: it was confirmed, or the run ended without.
fn wait(record: &Path, epoch: &Epoch, patience: &Patience) -> bool {
    let (begun, mut waiting) =
        (Instant::now(), Waiting { taken: None, patience: Duration::from_secs(patience.seconds) });
    loop {
        // Looked at before the record: what a run that has ended did is in it.
        let over = std::os::unix::process::parent_id() != patience.run;
        // A record that cannot be read at the moment says nothing; one that cannot be read for so long is to be told of.
        let Ok(seen) = Record::read(record, epoch) else {
            if over && begun.elapsed().as_secs() >= patience.seconds {
                return true;
            }
            std::thread::park_timeout(LOOK_EVERY);
            continue;
        };
        if let Some(ends) = waiting.look(unconfirmed(seen.claims()).next().is_some(), over, Instant::now()) {
            return ends;
        }
        std::thread::park_timeout(LOOK_EVERY);
    }
}

/// Since when an uplink is taken and not confirmed, as far as it is known.
struct Waiting {
    taken: Option<Instant>,
    patience: Duration,
}

impl Waiting {
    /// `over`: the run that takes it has ended. True: it is to be given back; false: there is nothing to give back any more.
    /// Before the run ends, what is given back or confirmed may be of a run before it, which it waits for.
    fn look(&mut self, is_pending: bool, over: bool, now: Instant) -> Option<bool> {
        if !is_pending {
            self.taken = None;
            return over.then_some(false);
        }
        let since = *self.taken.get_or_insert(now);
        (now.duration_since(since) >= self.patience).then_some(true)
    }
}

/// Another run may be at work; it is waited for.
fn open_patiently(path: &Path, epoch: &Epoch) -> Result<Record, Problem> {
    let start = Instant::now();
    loop {
        match Record::open(path, epoch) {
            Err(e) if start.elapsed() < BUSY_MAX || e.why.contains("at work") => std::thread::park_timeout(LOOK_EVERY),
            outcome => return outcome,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_earlier_run_gives_back_is_not_what_is_waited_for() {
        let begun = Instant::now();
        let at = |seconds| begun + Duration::from_secs(seconds);
        let mut waiting = Waiting { taken: None, patience: Duration::from_secs(5) };
        // The earlier one's, which goes; then the run's own.
        assert_eq!(waiting.look(true, false, at(0)), None);
        assert_eq!(waiting.look(false, false, at(3)), None);
        assert_eq!(waiting.look(true, false, at(4)), None);
        assert_eq!(waiting.look(true, true, at(8)), None);
        assert_eq!(waiting.look(true, true, at(9)), Some(true));
        // Confirmed, or never taken.
        assert_eq!(waiting.look(false, true, at(9)), Some(false));
    }
}
