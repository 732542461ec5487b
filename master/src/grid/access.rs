//! Who calls: from a connection's certificate to a principal, and whether an open stream may go on.

use super::{Grid, Topic};
use plat_link::{Peer, PeerIdentity};
use plat_master_plan::authenticate::authenticate;
use plat_master_plan::{State, access, certify};
use plat_model::id::{InstanceName, NodeId};
use plat_model::identity::Identity;
use plat_model::principal::{Principal, Role};
use plat_model::problem::codes;
use plat_model::{Problem, Timestamp};
use std::net::SocketAddr;
use std::time::Duration;

/// Longest wait for the end of a certificate at once.
const LOOK: Duration = Duration::from_secs(600);

/// Who makes a call, from where, and which.
#[derive(Debug, Clone)]
pub struct Caller {
    pub principal: Principal,
    /// The certificate that was shown.
    pub identity: Option<PeerIdentity>,
    /// `None` for the master itself.
    pub remote: Option<SocketAddr>,
    /// A name of the access table.
    pub rpc: &'static str,
    /// The instance that the call names, for the audit log.
    pub about: Option<InstanceName>,
    /// Of a node, its rejoin certificate when the call began: another one means that it was enrolled anew since.
    enrolment: Option<String>,
}

impl Caller {
    /// The master in its rounds.
    pub fn master(rpc: &'static str) -> Self {
        Self { principal: Principal::Master, identity: None, remote: None, rpc, about: None, enrolment: None }
    }

    /// Where the call came from, for the audit log.
    pub fn from(&self) -> String {
        self.remote.map_or_else(|| "master".to_owned(), |remote| remote.ip().to_string())
    }

    /// The same, naming the instance it is about.
    pub fn about(&self, name: &InstanceName) -> Self {
        Self { about: Some(name.clone()), ..self.clone() }
    }

    /// The node that calls.
    ///
    /// # Errors
    /// [`codes::DENIED`] if the caller is none.
    pub fn node(&self) -> Result<&NodeId, Problem> {
        match &self.principal {
            Principal::Node(id) | Principal::Rejoin(id) => Ok(id),
            other => Err(Problem::new(codes::DENIED, format!("{other} is not a node"))),
        }
    }

    /// The role of the user who calls.
    pub fn role(&self) -> Option<&Role> {
        match &self.principal {
            Principal::User { role, .. } => Some(role),
            _ => None,
        }
    }

    /// Serial number of the certificate that was shown; empty without one.
    pub fn serial(&self) -> &str {
        self.identity.as_ref().map_or("", |identity| &identity.serial_hex)
    }
}

impl Grid {
    /// Lets a call in: who its caller is by his row, and whether callers of his kind may make it at all. Whether the
    /// thing it names is his own, the verb checks.
    ///
    /// # Errors
    /// As `authenticate`; [`codes::NO_CERTIFICATE`] without a certificate where one is needed; [`codes::DENIED`] for a
    /// call that is not for this kind of caller, or not in the access table.
    pub fn admit(&self, rpc: &str, peer: Option<&Peer>) -> Result<Caller, Problem> {
        let state = self.store.snapshot().state;
        let identity = peer.and_then(|peer| peer.identity.clone());
        let principal = principal(&state, identity.as_ref(), self.now())?;
        let denied = || {
            Problem::new(codes::DENIED, format!("{principal} may not call {}", plat_model::id::shorten(rpc)))
                .because(format!("it is not for callers of the kind {:?}", principal.kind()))
                .fix("ask an operator of the grid, or use other credentials")
        };
        let row = match access::row(rpc) {
            Some(row) if row.kinds.contains(&principal.kind()) => row,
            _ if principal == Principal::Anonymous => return Err(no_certificate()),
            _ => return Err(denied()),
        };
        let enrolment = match &principal {
            Principal::Node(id) | Principal::Rejoin(id) => state.nodes.get(id).map(|n| n.certificates.rejoin.clone()),
            _ => None,
        };
        Ok(Caller { principal, identity, remote: peer.map(|p| p.remote), rpc: row.rpc, about: None, enrolment })
    }

    /// Whether anybody who is known calls: for the calls that tell what calls there are.
    ///
    /// # Errors
    /// As `authenticate`, and [`codes::NO_CERTIFICATE`] without a certificate.
    pub fn known(&self, peer: Option<&Peer>) -> Result<Principal, Problem> {
        let state = self.store.snapshot().state;
        match principal(&state, peer.and_then(|peer| peer.identity.as_ref()), self.now())? {
            Principal::Anonymous => Err(no_certificate()),
            principal => Ok(principal),
        }
    }

    /// The first call with a new certificate ends the life of the one before.
    ///
    /// # Errors
    /// The store's.
    pub async fn first_use(&self, caller: &Caller) -> Result<(), Problem> {
        let Principal::Node(node) = &caller.principal else { return Ok(()) };
        while let Some(decision) = {
            let snapshot = self.store.snapshot();
            certify::used(&snapshot.state, node, caller.serial()).map(|decision| (snapshot.revision, decision))
        } {
            let (at, decision) = decision;
            match self.store.commit(decision.expected(at), decision.changes).await {
                Ok(_) => break,
                Err(crate::store::CommitError::Conflict(_)) => {}
                Err(crate::store::CommitError::Failed(problem)) => return Err(problem),
            }
        }
        Ok(())
    }

    /// Returns once the caller's streams must end, with the reason: his row says so, or his certificate has ended. A node
    /// that has renewed its certificate goes on until then: its stream was opened with one that counted.
    pub async fn ended(&self, caller: &Caller) -> Problem {
        let topic = match &caller.principal {
            Principal::Node(id) | Principal::Rejoin(id) => Topic::Node(id.clone()),
            Principal::User { name, .. } => Topic::User(name.clone()),
            Principal::Anonymous | Principal::Instance(_) | Principal::Master => return std::future::pending().await,
        };
        let mut row = self.nudges.subscribe(topic);
        loop {
            if let Err(problem) = self.still(caller) {
                return problem;
            }
            let end = caller.identity.as_ref().map(|identity| identity.not_after);
            // The clock may be set meanwhile, so it is looked at now and then; just after the end, it is past it.
            let left = end.map_or(LOOK, |end| end.since(self.now()).saturating_add(Duration::from_millis(1)).min(LOOK));
            tokio::select! {
                () = row.changed() => {}
                () = tokio::time::sleep(left) => {}
            }
        }
    }

    fn still(&self, caller: &Caller) -> Result<(), Problem> {
        let state = self.store.snapshot().state;
        let now = principal(&state, caller.identity.as_ref(), self.now());
        match now {
            Ok(now) if now == caller.principal && self.enrolment_of(&state, caller) => Ok(()),
            Err(problem) if problem.code != codes::STALE_CERTIFICATE => Err(problem),
            Err(_) if matches!(caller.principal, Principal::Node(_)) && self.enrolment_of(&state, caller) => Ok(()),
            Err(problem) => Err(problem),
            Ok(_) => Err(Problem::new(codes::REVOKED, format!("{} is not accepted any more", caller.principal))
                .because("what it is was changed")
                .fix("ask an operator for a new token")),
        }
    }

    fn enrolment_of(&self, state: &State, caller: &Caller) -> bool {
        match (&caller.principal, &caller.enrolment) {
            (Principal::Node(id) | Principal::Rejoin(id), Some(rejoin)) => {
                state.nodes.get(id).is_some_and(|node| !node.revoked && &node.certificates.rejoin == rejoin)
            }
            (Principal::Node(_) | Principal::Rejoin(_), None) => false,
            _ => true,
        }
    }
}

/// Who he is who shows a certificate, now.
fn principal(state: &State, identity: Option<&PeerIdentity>, now: Timestamp) -> Result<Principal, Problem> {
    match identity {
        None => Ok(Principal::Anonymous),
        // The master calls nobody: whoever shows its certificate holds its key, and is not it.
        Some(PeerIdentity { identity: Identity::Master, .. }) => Err(no_certificate()),
        Some(PeerIdentity { identity, not_after, .. }) if *not_after <= now => {
            Err(Problem::new(codes::NO_CERTIFICATE, format!("the certificate of {identity} is not good any more"))
                .because(format!("it ended at {not_after}"))
                .fix("connect again with a newer one; a person asks an operator for a token and logs in with it"))
        }
        Some(PeerIdentity { identity, serial_hex, .. }) => authenticate(state, identity, serial_hex),
    }
}

fn no_certificate() -> Problem {
    Problem::new(codes::NO_CERTIFICATE, "this call needs a certificate of the grid")
        .because("none was shown, or one that is for nobody who may call")
        .fix("enrol the node (`plat-agent enroll`), or log in (`plat login`)")
}
