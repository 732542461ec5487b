//! What instances ask for: through their node, which speaks for those that it holds and for no other.

use super::{Caller, Grid};
use crate::pki;
use plat_master_plan::access::Subject;
use plat_master_plan::decision::Decision;
use plat_master_plan::{Change, State, record::Record, tree};
use plat_model::Problems;
use plat_model::id::InstanceId;
use plat_model::tree::{Child, TreeAsk};

impl Grid {
    /// Does what an instance asks for. Answers with the child that it requested, unless none is left of it, or with all if
    /// it asked for them.
    ///
    /// # Errors
    /// As [`tree::asking`] and what is asked for; `OVERLOADED` if one instance asks all the time.
    pub async fn for_instance(&self, caller: &Caller, id: &InstanceId, ask: TreeAsk) -> Result<Vec<Child>, Problems> {
        let node = caller.node()?.clone();
        let subject = Subject::Node(node.clone());
        let name = self.look(caller, &subject, |state| Ok(tree::asking(state, &node, id)?.name.clone())).await?;
        self.asking.take(id)?;
        let caller = caller.about(&name);
        match ask {
            TreeAsk::Request(ask) => {
                let fresh = InstanceId::parse(&pki::hex(&pki::random::<16>()?))?;
                let decide = |state: &State, now| {
                    let parent = tree::asking(state, &node, id)?;
                    let decision = tree::request_child(state, parent, &ask, fresh.clone(), now)?;
                    let child = decision.answer.and_then(|id| as_decided(state, &decision.changes, &id));
                    Ok(Decision { answer: child.into_iter().collect(), changes: decision.changes, read: decision.read })
                };
                self.change(&caller, &subject, decide).await
            }
            TreeAsk::Children => {
                let look = |state: &State| Ok(tree::children(state, tree::asking(state, &node, id)?));
                Ok(self.look(&caller, &subject, look).await?)
            }
            TreeAsk::Publish { shared, connection } => {
                let decide = |state: &State, now| {
                    let host = tree::asking(state, &node, id)?;
                    Ok(tree::publish_shared(state, host, &shared, &connection, now)?)
                };
                self.change(&caller, &subject, decide).await?;
                Ok(Vec::new())
            }
            TreeAsk::Bang => {
                let decide = |state: &State, now| Ok(tree::bang(state, tree::asking(state, &node, id)?, now));
                self.change(&caller, &subject, decide).await?;
                Ok(Vec::new())
            }
        }
    }
}

/// A child as `changes`, decided on `state`, leave it; `None` if they remove it.
fn as_decided(state: &State, changes: &[Change], id: &InstanceId) -> Option<Child> {
    let mut then = state.clone();
    let own = |change: &&Change| match change {
        Change::Put(record) => matches!(&**record, Record::Instance(instance) if &instance.id == id),
        Change::Delete(key) => *key == plat_master_plan::Key::Instance(id.clone()),
    };
    changes.iter().filter(own).for_each(|change| then.apply(change, 0));
    then.instances.get(id).map(|instance| tree::child(&then, instance))
}
