//! What instances write in their partitions, which is there until they are destroyed and no longer; and those that are
//! kept for a time before that.

use crate::client::Notes;
use crate::world::World;
use plat_agent_plan::facts::Occupant;
use plat_model::Timestamp;
use plat_model::id::{InstanceId, NodeId, PartitionName};
use plat_model::instance::Wish;
use plat_tests::invariants::Seen;
use std::collections::BTreeMap;

/// Where each writes its own id.
const DATA: &str = "srv/data";

#[derive(Default)]
pub struct Kept {
    /// Whose data is where.
    written: BTreeMap<(NodeId, PartitionName), InstanceId>,
    /// How often one was to be kept for a time, was wished again within it, and was destroyed after it.
    pub began: usize,
    pub back: usize,
    pub left: usize,
}

impl Kept {
    /// # Errors
    /// Whose data is lost, or still there; who was destroyed before its time.
    pub fn look(
        &mut self,
        before: &Seen,
        now: &Seen,
        world: &World,
        notes: &Notes,
        time: Timestamp,
    ) -> Result<(), String> {
        self.data_is_there(now, world)?;
        for (id, was) in &before.state.instances {
            let is = now.state.instances.get(id);
            let is_wished = is.map(|is| (is.wish, is.leaving.map(|leaving| leaving.at)));
            match (was.leaving, is_wished) {
                (None, Some((_, Some(_)))) => self.began += 1,
                (Some(leaving), Some((Wish::Destroyed, _)) | None) => {
                    // Who asked for it may be destroyed sooner, and it goes with that.
                    let was_asked = notes.to_destroy.contains(id) || was.parent.is_some();
                    if time < leaving.at && !was_asked {
                        return Err(format!("{id} is kept until {} and was destroyed", leaving.at));
                    }
                    self.left += usize::from(time >= leaving.at);
                }
                (Some(_), Some((_, None))) => self.back += 1,
                _ => {}
            }
        }
        Ok(())
    }

    fn data_is_there(&mut self, now: &Seen, world: &World) -> Result<(), String> {
        for (node, partitions) in &now.machines {
            for (partition, fact) in partitions {
                let place = (node.clone(), partition.clone());
                let file = world.hosts[node].file(partition, DATA);
                let there = |occupant: &&Occupant| occupant.ready && !occupant.erased;
                let holds = fact.occupant.as_ref().filter(|occupant| !occupant.erased).map(|one| &one.instance);
                let is_same = holds.is_some() && self.written.get(&place) == holds;
                match &file {
                    _ if is_same && file.as_deref() != holds.map(InstanceId::as_str) => {
                        return Err(format!("the data of {holds:?} in {partition} of {node} is {file:?}"));
                    }
                    Some(text) if !is_same => {
                        return Err(format!("the data of {text} is still in {partition} of {node}"));
                    }
                    _ if is_same => {}
                    _ => drop(self.written.remove(&place)),
                }
                if let Some(occupant) = fact.occupant.as_ref().filter(there).filter(|_| !is_same) {
                    world.hosts[node].put_file(partition, DATA, occupant.instance.as_str());
                    self.written.insert(place, occupant.instance.clone());
                }
            }
        }
        Ok(())
    }

    /// # Errors
    /// Who is kept still, or whose data is.
    pub fn at_rest(&self, now: &Seen, notes: &Notes) -> Result<(), String> {
        if let Some((at, id)) = now.state.leaving.get_min() {
            return Err(format!("{id} is kept until {at}"));
        }
        let mut gone = self.written.iter().filter(|((node, _), _)| !notes.revoked.contains(node));
        match gone.find(|(_, id)| !now.state.instances.contains_key(*id)) {
            Some(((node, partition), id)) => Err(format!("the data of {id} is in {partition} of {node} for ever")),
            None => Ok(()),
        }
    }
}
