//! What must hold of what instances say and ask over their sockets: invariant 6 for them, and that none is answered or
//! heard for another. Each of these lists what instances were answered; what nobody was answered may be either way.

use super::{Held, Seen, Told, facts};
use plat_model::id::{InstanceId, InstanceName};
use plat_model::instance::Wish;
use plat_model::parameters::Parameters;
use plat_model::tree::Said;
use std::collections::{BTreeMap, BTreeSet};

/// The key in what a simulated instance publishes under which it says its own id.
pub const WHO: &str = "who";

/// What instances were answered.
#[derive(Debug, Default)]
pub struct Answered {
    /// All that each has published itself.
    pub published: BTreeMap<InstanceId, Parameters>,
    pub said: BTreeMap<InstanceId, Said>,
    /// What each has asked for, under the name that it gave.
    pub children: BTreeMap<(InstanceId, InstanceName), Told>,
    /// How often each has asked for a child that is to be there; to ask again for lack of an answer is the same time.
    pub asks: BTreeMap<(InstanceId, InstanceName), usize>,
}

/// What an instance published or said of itself was acknowledged once it was durable, and nobody else can have said it.
///
/// # Errors
/// The instance of which something else is kept.
pub fn what_an_instance_said_is_kept(now: &Seen, answered: &Answered) -> Held {
    for (node, partition, fact) in facts(now) {
        let Some(occupant) = fact.occupant.as_ref().filter(|occupant| !occupant.erased) else { continue };
        let id = &occupant.instance;
        let who = occupant.spoken.as_map().get(WHO).and_then(|who| who.as_str());
        if who.is_some_and(|who| who != id.as_str()) {
            return Err(format!("{id} in {partition} of {node} is kept to have published what {who:?} did"));
        }
        if let Some(published) = answered.published.get(id).filter(|published| **published != occupant.spoken) {
            let (published, kept) = (published.to_json(), occupant.spoken.to_json());
            return Err(format!("{id} has published {published}, {kept} is kept"));
        }
        if let Some(said) = answered.said.get(id).filter(|said| Some(*said) != occupant.said.as_ref()) {
            return Err(format!("{id} has said {said:?}, {:?} is kept", occupant.said));
        }
    }
    Ok(())
}

/// What `plat show` says of an instance in the end: what its release publishes, and over that what it published itself.
///
/// # Errors
/// The instance of which it says something else.
pub fn what_was_said_is_shown(now: &Seen, answered: &Answered) -> Held {
    for (node, _, fact) in facts(now) {
        let Some(occupant) = fact.occupant.as_ref().filter(|occupant| !occupant.erased) else { continue };
        let id = &occupant.instance;
        let stands = now.state.nodes.get(node).is_some_and(|row| !row.revoked);
        let Some(status) = now.state.statuses.get(id).filter(|_| stands) else { continue };
        let published = answered.published.get(id).cloned().unwrap_or_default();
        let whole = occupant.connection.with(&published).map_err(|why| format!("{id}: {why}"))?;
        if status.connection != whole {
            let (whole, shown) = (whole.to_json(), status.connection.to_json());
            return Err(format!("{id} is reached by {whole}, {shown} is shown"));
        }
        if status.said != answered.said.get(id).cloned() {
            return Err(format!("{id} has said {:?}, {:?} is shown", answered.said.get(id), status.said));
        }
    }
    Ok(())
}

/// A child that an instance was told of is as it was asked for, for as long as who asked is to be there.
///
/// # Errors
/// The child that is gone, or is another one.
pub fn a_requested_child_is_there(now: &Seen, answered: &Answered) -> Held {
    for ((parent, name), told) in &answered.children {
        if now.state.instances.get(parent).is_none_or(|parent| parent.wish == Wish::Destroyed) {
            continue;
        }
        let id = now.state.children.get(parent).and_then(|children| children.get(name));
        let Some(child) = id.and_then(|id| now.state.instances.get(id)) else {
            if told.wish == Wish::Destroyed {
                continue;
            }
            return Err(format!("{parent} was told of its child {name} as {} and it is gone", told.id));
        };
        let mut kept = Told::of(child);
        // With the one that asked for it a child is kept until both go, and then is as it was.
        kept.wish = child.leaving.map_or(kept.wish, |leaving| leaving.before);
        kept.leaves = None;
        if kept != *told {
            return Err(format!("{parent} was told {told:?} of its child {name}, {kept:?} is kept"));
        }
    }
    Ok(())
}

/// All children that ever were.
#[derive(Default)]
pub struct Children {
    made: BTreeMap<(InstanceId, InstanceName), BTreeSet<InstanceId>>,
}

impl Children {
    /// A child is made once, however often its parent asks again because an answer was lost.
    ///
    /// # Errors
    /// The child that was made more often than it was asked for.
    pub fn are_made_once(&mut self, now: &Seen, answered: &Answered) -> Held {
        for child in now.state.instances.values() {
            let Some(parent) = &child.parent else { continue };
            let key = (parent.instance.clone(), parent.name.clone());
            let asks = answered.asks.get(&key).copied().unwrap_or(0);
            let made = self.made.entry(key).or_default();
            made.insert(child.id.clone());
            if made.len() > asks {
                return Err(format!("{} was asked for {asks} times and is {made:?}", child.name));
            }
        }
        Ok(())
    }

    pub fn count(&self) -> usize {
        self.made.values().map(BTreeSet::len).sum()
    }
}
