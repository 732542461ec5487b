//! What runs in the partitions: at random it says and asks over its socket, asks again when it was not answered, and
//! writes down what it was answered. It is part of its machine, so that neither the agent's end nor the master's ends it.

use crate::client::{Shared, lock};
use crate::world::{NODES, PARTITIONS, World, node_name, partitions};
use plat_master_plan::State;
use plat_model::id::{InstanceId, InstanceName, NodeId, PartitionName};
use plat_model::instance::{Instance, Wish};
use plat_model::parameters::Parameters;
use plat_model::problem::codes;
use plat_model::tree::{Child, Said};
use plat_model::{Category, Problem};
use plat_tests::invariants::Told;
use plat_tests::invariants::tree::{Answered, WHO};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::{Map, Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::Duration;

/// In one of so many steps somebody has something to say.
const SELDOM: u32 = 60;
/// Names that an instance gives to its children.
const NAMES: usize = 2;
/// A child is small, so that the instances of users find their places as they would without any.
pub const CHILD_MEMORY_MIB: u32 = 64;
/// How soon one who was not answered asks again.
const AGAIN: Duration = Duration::from_millis(300);

type Place = (NodeId, PartitionName);

/// What an ask comes to if it is answered.
enum Meaning {
    Get,
    /// All that is published then.
    Publish(Parameters),
    Status(Said),
    /// The child, as it was known before.
    Request {
        name: InstanceName,
        wish: Wish,
        parameters: Parameters,
        before: Option<Told>,
    },
    Children,
    /// How often those were banged before whom it is to reach.
    Bang(BTreeMap<InstanceId, u64>),
}

/// An ask that is not answered yet.
struct Open {
    who: Arc<Instance>,
    meaning: Meaning,
    line: String,
    stream: Option<UnixStream>,
    heard: Vec<u8>,
    /// Not asked again before this time.
    again: Duration,
}

/// All of them.
pub struct Instances {
    random: StdRng,
    open: BTreeMap<Place, Open>,
    answered: Answered,
    /// Those that go, and say no more: nobody knows what they said last.
    silent: BTreeSet<InstanceId>,
    quiet: bool,
    /// How many asks were answered.
    pub count: usize,
}

impl Instances {
    pub fn new(seed: u64) -> Self {
        let random = StdRng::seed_from_u64(seed ^ 0xa5c);
        let (open, answered, silent) = (BTreeMap::new(), Answered::default(), BTreeSet::new());
        Self { random, open, answered, silent, quiet: false, count: 0 }
    }

    pub fn answered(&self) -> &Answered {
        &self.answered
    }

    /// Nothing more is asked, but what is not answered yet.
    pub fn quiet(&mut self) {
        self.quiet = true;
    }

    /// # Errors
    /// Who still waits for an answer.
    pub fn at_rest(&self) -> Result<(), String> {
        match self.open.iter().next() {
            Some(((node, partition), open)) => Err(format!("{partition} of {node} is not answered: {}", open.line)),
            None => Ok(()),
        }
    }

    /// Hears what was answered, and may ask something. What it was told, for the trace.
    ///
    /// # Errors
    /// The answer that is wrong.
    pub fn step(&mut self, now: Duration, world: &World, notes: &Shared) -> Result<Vec<String>, String> {
        let mut told = Vec::new();
        let places: Vec<Place> = self.open.keys().cloned().collect();
        for place in places {
            match self.listen(now, world, &place) {
                Ok(None) => {}
                Ok(Some(line)) => {
                    told.push(format!("{} {}: {line}", place.0, place.1));
                    self.take(now, world, notes, &place, &line)?;
                }
                Err(_) => self.lost(now, world, notes, &place),
            }
        }
        if !self.quiet && self.random.random_range(0..SELDOM) == 0 {
            self.begin(now, world, notes);
        }
        Ok(told)
    }

    fn begin(&mut self, now: Duration, world: &World, notes: &Shared) {
        let node = node_name(self.random.random_range(1..=NODES));
        let partition = partitions().nth(self.random.random_range(0..PARTITIONS)).expect("there are some");
        let place = (node, partition);
        let occupant = world.hosts[&place.0].fact(&place.1).occupant;
        let Some(occupant) = occupant.filter(|occupant| occupant.ready && !occupant.erased) else { return };
        let state = world.state();
        let may_speak = |who: &&Arc<Instance>| !self.silent.contains(&who.id) && !self.open.contains_key(&place);
        let Some(who) = state.instances.get(&occupant.instance).filter(may_speak) else { return };
        let (meaning, mut ask) = match self.random.random_range(0..16) {
            0..=3 => (Meaning::Get, json!({"ask": "get"})),
            4..=7 => self.publish(&who.id),
            8..=9 => self.status(&who.id),
            10..=13 if who.parent.is_none() => self.request(who, notes),
            15 => {
                let reached = state.children_of(&who.id).chain([&**who]);
                let reached = reached.map(|one| (one.id.clone(), one.bang)).collect();
                (Meaning::Bang(reached), json!({"ask": "bang"}))
            }
            _ => (Meaning::Children, json!({"ask": "children"})),
        };
        ask["v"] = 1.into();
        let open =
            Open { who: who.clone(), meaning, line: format!("{ask}\n"), stream: None, heard: Vec::new(), again: now };
        self.open.insert(place, open);
    }

    /// Its own id, and one of two words, or one word less.
    fn publish(&mut self, who: &InstanceId) -> (Meaning, Value) {
        let word = ["word", "other"][self.random.random_range(0..2)];
        let value = match self.random.random_range(0..4) {
            0 => Value::Null,
            value => format!("{value} of {who}").into(),
        };
        let said = Map::from_iter([(WHO.to_owned(), who.as_str().into()), (word.to_owned(), value)]);
        let mut all = self.answered.published.remove(who).unwrap_or_default().as_map().clone();
        all.extend(said.clone());
        all.retain(|_, value| !value.is_null());
        let all = Parameters::new(all).expect("it is small");
        (Meaning::Publish(all), json!({"ask": "publish", "connection": said}))
    }

    fn status(&mut self, who: &InstanceId) -> (Meaning, Value) {
        self.answered.said.remove(who);
        let (well, text) = (self.random.random_bool(0.5), format!("{} of {who}", self.random.random_range(0..3)));
        let ask = json!({"ask": "status", "well": well, "text": text});
        (Meaning::Status(Said { well, text }), ask)
    }

    /// From here on nobody knows how the child is, until there is an answer.
    fn request(&mut self, who: &Instance, notes: &Shared) -> (Meaning, Value) {
        let name = InstanceName::parse(&format!("c{}", self.random.random_range(0..NAMES))).expect("a legal name");
        let size = self.random.random_range(1..5);
        let parameters = Map::from_iter([("size".to_owned(), size.into())]);
        let key = (who.id.clone(), name.clone());
        let before = self.answered.children.remove(&key);
        let there = before.as_ref().filter(|told| told.wish != Wish::Destroyed);
        lock(notes).asked_to_change.extend(there.map(|told| told.id.clone()));
        let wish = match (there, self.random.random_range(0..6)) {
            (Some(_), 0) => Wish::Destroyed,
            (Some(_), 1) => Wish::Stopped,
            _ => Wish::Started,
        };
        // What is to be destroyed is not made for that.
        if wish != Wish::Destroyed {
            *self.answered.asks.entry(key).or_default() += 1;
        }
        let ask = json!({
            "ask": "request", "name": name, "release": "counter", "parameters": parameters, "wish": wish,
            "resources": {"memory_mib": CHILD_MEMORY_MIB},
        });
        // Of one that is to go nothing else is changed.
        let kept = there.filter(|_| wish == Wish::Destroyed).map(|told| told.parameters.clone());
        let parameters = kept.unwrap_or_else(|| Parameters::new(parameters).expect("it is small"));
        (Meaning::Request { name, wish, parameters, before }, ask)
    }

    /// The whole answer, once there is one.
    fn listen(&mut self, now: Duration, world: &World, place: &Place) -> io::Result<Option<String>> {
        let Some(open) = self.open.get_mut(place) else { return Ok(None) };
        let Some(stream) = &mut open.stream else {
            if now >= open.again {
                let mut stream = world.hosts[&place.0].speak(&place.1)?;
                stream.write_all(open.line.as_bytes())?;
                open.stream = Some(stream);
            }
            return Ok(None);
        };
        let mut some = [0; 16 * 1024];
        match stream.read(&mut some) {
            Ok(0) => Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(bytes) => {
                open.heard.extend_from_slice(&some[..bytes]);
                let whole = open.heard.ends_with(b"\n");
                Ok(whole.then(|| String::from_utf8_lossy(&open.heard).trim_end().to_owned()))
            }
            Err(why) if why.kind() == io::ErrorKind::WouldBlock => Ok(None),
            Err(why) => Err(why),
        }
    }

    /// Nobody knows whether it was done: it is asked again, by the same one only.
    fn lost(&mut self, now: Duration, world: &World, notes: &Shared, place: &Place) {
        lock(notes).lost += 1;
        let occupant = world.hosts[&place.0].fact(&place.1).occupant.filter(|occupant| !occupant.erased);
        let Some(open) = self.open.get_mut(place) else { return };
        if occupant.is_none_or(|occupant| occupant.instance != open.who.id) {
            self.silent.insert(open.who.id.clone());
            self.open.remove(place);
            return;
        }
        (open.stream, open.again) = (None, now + AGAIN);
        open.heard.clear();
    }

    fn take(&mut self, now: Duration, world: &World, notes: &Shared, place: &Place, line: &str) -> Result<(), String> {
        let wrong = |why: &dyn std::fmt::Display| format!("{} of {} was answered {line}: {why}", place.1, place.0);
        let mut answer: Map<String, Value> = serde_json::from_str(line).map_err(|why| wrong(&why))?;
        if let Some(problem) = answer.remove("problem") {
            let problem: Problem = serde_json::from_value(problem).map_err(|why| wrong(&why))?;
            let comes_back =
                [Category::Unavailable, Category::TimedOut, Category::Failed, Category::Exhausted].as_slice();
            if comes_back.contains(&problem.category()) {
                self.lost(now, world, notes, place);
                return Ok(());
            }
            let Some(open) = self.open.remove(place) else { return Ok(()) };
            let goes = goes(&world.state(), notes, place, &open.who.id);
            let is_answer = match &open.meaning {
                // The name may still be that of a child of one who was called as this one is, and is going.
                Meaning::Request { .. } if [codes::EXISTS, codes::DESTROYED].contains(&problem.code) => true,
                _ => false,
            };
            if goes {
                self.silent.insert(open.who.id.clone());
            }
            return if goes || is_answer { Ok(()) } else { Err(wrong(&"a good ask was refused")) };
        }
        let Some(open) = self.open.remove(place) else { return Ok(()) };
        let value = answer.remove("ok").ok_or_else(|| wrong(&"it says nothing"))?;
        self.count += 1;
        lock(notes).acknowledged += 1;
        let goes = goes(&world.state(), notes, place, &open.who.id) || lock(notes).to_leave.contains(&open.who.id);
        self.understand(open, value, &world.state(), goes).map_err(|why| wrong(&why))
    }

    /// Takes an answer for what it says. One that `goes` may be answered in the middle of that.
    fn understand(&mut self, open: Open, value: Value, state: &State, goes: bool) -> Result<(), String> {
        let Open { who, meaning, .. } = open;
        match meaning {
            Meaning::Get => {
                let own = json!({"id": who.id, "name": who.name, "project": who.project});
                let published = self.answered.published.get(&who.id).cloned().unwrap_or_default();
                if value["instance"] != own || value["published"] != json!(published) {
                    return Err(format!("it is {own} and has published {published:?}"));
                }
            }
            Meaning::Publish(all) => drop(self.answered.published.insert(who.id.clone(), all)),
            Meaning::Status(said) => drop(self.answered.said.insert(who.id.clone(), said)),
            Meaning::Request { name, wish, parameters, before } => {
                // One that is nowhere is gone as soon as it is to be destroyed, and one that is gone stays so.
                if value.is_null() && wish == Wish::Destroyed {
                    return Ok(());
                }
                let child: Child = serde_json::from_value(value).map_err(|why| why.to_string())?;
                its_own(state, &who, &child)?;
                let before = before.filter(|told| told.wish != Wish::Destroyed);
                if before.is_some_and(|told| told.id != child.id) || child.name != name || child.wish != wish && !goes {
                    return Err(format!("it asked for {name}, to be {wish}"));
                }
                self.answered
                    .children
                    .insert((who.id.clone(), name), Told { id: child.id, wish, leaves: None, parameters });
            }
            Meaning::Children => {
                let children: Vec<Child> = serde_json::from_value(value).map_err(|why| why.to_string())?;
                children.iter().try_for_each(|child| its_own(state, &who, child))?;
                let own = self.answered.children.iter().filter(|((parent, _), _)| *parent == who.id);
                let is_there = |told: &Told| children.iter().any(|one| one.id == told.id && one.wish == told.wish);
                let missing = own.map(|(_, told)| told).find(|told| told.wish != Wish::Destroyed && !is_there(told));
                if let Some(missing) = missing.filter(|_| !goes) {
                    return Err(format!("it was told of its child {missing:?}"));
                }
            }
            Meaning::Bang(before) => {
                let unmoved = |(id, bang): &(&InstanceId, &u64)| {
                    state.instances.get(*id).is_some_and(|one| one.wish != Wish::Destroyed && one.bang <= **bang)
                };
                if let Some((id, _)) = before.iter().find(unmoved) {
                    return Err(format!("{id} heard no bang"));
                }
            }
        }
        Ok(())
    }
}

/// Whether an instance is to go, or its node was shut out: then the master refuses it.
fn goes(state: &State, notes: &Shared, place: &Place, id: &InstanceId) -> bool {
    let is_out = state.nodes.get(&place.0).is_none_or(|row| row.revoked) || lock(notes).revoked.contains(&place.0);
    is_out || state.instances.get(id).is_none_or(|instance| instance.wish == Wish::Destroyed)
}

/// Nobody is told of another's child, nor how to reach another than that.
fn its_own(state: &State, who: &Instance, child: &Child) -> Result<(), String> {
    let parent = state.instances.get(&child.id).map(|one| one.parent.as_ref().map(|parent| &parent.instance));
    let speaks = child.connection.as_map().get(WHO).and_then(Value::as_str);
    let is_own = child.instance.as_str() == format!("{}-{}", who.name, child.name)
        && parent.is_none_or(|parent| parent == Some(&who.id))
        && speaks.is_none_or(|id| id == child.id.as_str());
    if is_own { Ok(()) } else { Err(format!("{} is no child of {}, or it is told as another", child.id, who.id)) }
}
