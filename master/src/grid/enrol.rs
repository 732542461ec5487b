//! Certificates for nodes and people: each is signed only after the plan allowed it and the row that makes it count is
//! durable.

use super::{Caller, Grid};
use crate::pki::Serial;
use crate::pki::csr::RequestedKey;
use crate::pki::invitation::Presented;
use plat_master_plan::State;
use plat_master_plan::access::Subject;
use plat_master_plan::certify::{self, Claim, NODE_VALIDITY, NewSerials, REJOIN_VALIDITY, USER_VALIDITY};
use plat_model::id::{NodeId, UserName};
use plat_model::identity::Identity;
use plat_model::principal::Principal;
use plat_model::{Problem, Problems};
use std::time::Duration;

/// A certificate with those above it, without the root; DER, leaf first.
pub type Chain = Vec<Vec<u8>>;

/// What a node that was enrolled gets.
#[derive(Debug)]
pub struct Admitted {
    pub node: NodeId,
    pub chain: Chain,
    pub rejoin_chain: Chain,
    pub root: Vec<u8>,
}

/// What a node that came for a new certificate gets.
#[derive(Debug)]
pub struct Renewed {
    pub chain: Chain,
    /// If it was asked for.
    pub rejoin_chain: Option<Chain>,
    pub root: Vec<u8>,
}

/// What a person who was certified gets.
#[derive(Debug)]
pub struct Signed {
    pub name: UserName,
    pub chain: Chain,
    pub root: Vec<u8>,
}

impl Grid {
    /// Joins a node by its token, for two keys: the one it works with, and the one it comes back with. May be asked
    /// again for the same keys while the token lasts, when the answer got lost.
    ///
    /// # Errors
    /// [`plat_model::problem::codes`]: `BAD_CSR`, `UNKNOWN_TOKEN`, `EXPIRED_TOKEN`, `USED_TOKEN`, `EXISTS`.
    pub async fn enroll(
        &self,
        caller: &Caller,
        token: &str,
        asked_name: Option<&NodeId>,
        csr: &[u8],
        rejoin_csr: &[u8],
    ) -> Result<Admitted, Problems> {
        let (key, rejoin_key) = (RequestedKey::parse(csr)?, RequestedKey::parse(rejoin_csr)?);
        let token = Presented::parse(token, self.ca.root_der())?;
        let keys = RequestedKey::hash(&[&key, &rejoin_key])?;
        let fresh = NewSerials { node: Serial::random()?.hex(), rejoin: Serial::random()?.hex() };
        let (node, serials) = self
            .change(caller, &Subject::Grid, |state, now| {
                let claim = Claim { token: &token.id, secret_hash: &token.secret_hash, keys: &keys };
                Ok(certify::enroll(state, &claim, asked_name, fresh.clone(), now)?)
            })
            .await?;
        let (serial, rejoin_serial) = (Serial::parse(&serials.node)?, Serial::parse(&serials.rejoin)?);
        tracing::info!(%node, "node enrolled");
        Ok(Admitted {
            chain: self.sign(&Identity::Node(node.clone()), &key, &serial, NODE_VALIDITY)?,
            rejoin_chain: self.sign(&Identity::Rejoin(node.clone()), &rejoin_key, &rejoin_serial, REJOIN_VALIDITY)?,
            root: self.ca.root_der().to_vec(),
            node,
        })
    }

    /// Gives a node or a user a new certificate, asked for with its present one; a node also with its rejoin
    /// certificate. With `rejoin_csr` a node gets its rejoin certificate as well, so that how long it may sleep is
    /// counted from its last sign of life.
    ///
    /// # Errors
    /// `BAD_CSR`; `STALE_CERTIFICATE` and `REVOKED` as the caller's row says; `OVERLOADED` if one node asks all the time.
    pub async fn renew(&self, caller: &Caller, csr: &[u8], rejoin_csr: Option<&[u8]>) -> Result<Renewed, Problems> {
        let key = RequestedKey::parse(csr)?;
        let rejoin_key = rejoin_csr.map(RequestedKey::parse).transpose()?;
        let serial = Serial::random()?;
        if let Principal::User { name, .. } = &caller.principal {
            let subject = Subject::User(name.clone());
            let decide = |state: &State, _| Ok(certify::renew_user(state, name, caller.serial(), &serial.hex())?);
            self.change(caller, &subject, decide).await?;
            let chain = self.sign(&Identity::User(name.clone()), &key, &serial, USER_VALIDITY)?;
            return Ok(Renewed { chain, rejoin_chain: None, root: self.ca.root_der().to_vec() });
        }
        let node = caller.node()?.clone();
        self.renewing.take(&node)?;
        let subject = Subject::Node(node.clone());
        let rejoin_serial = self
            .change(caller, &subject, |state, _| {
                Ok(match &caller.principal {
                    Principal::Rejoin(_) => certify::rejoin(state, &node, caller.serial(), &serial.hex())?,
                    _ => certify::renew(state, &node, caller.serial(), &serial.hex())?,
                })
            })
            .await?;
        let rejoin_chain = match rejoin_key {
            Some(key) => {
                let serial = Serial::parse(&rejoin_serial)?;
                Some(self.sign(&Identity::Rejoin(node.clone()), &key, &serial, REJOIN_VALIDITY)?)
            }
            None => None,
        };
        let chain = self.sign(&Identity::Node(node), &key, &serial, NODE_VALIDITY)?;
        Ok(Renewed { chain, rejoin_chain, root: self.ca.root_der().to_vec() })
    }

    /// Gives a person a certificate by a token. May be asked again for the same key while the token lasts.
    ///
    /// # Errors
    /// `BAD_CSR`, `UNKNOWN_TOKEN`, `EXPIRED_TOKEN`, `USED_TOKEN`.
    pub async fn login(&self, caller: &Caller, token: &str, csr: &[u8]) -> Result<Signed, Problems> {
        let key = RequestedKey::parse(csr)?;
        let token = Presented::parse(token, self.ca.root_der())?;
        let (keys, fresh) = (RequestedKey::hash(&[&key])?, Serial::random()?.hex());
        let (name, serial) = self
            .change(caller, &Subject::Grid, |state, now| {
                let claim = Claim { token: &token.id, secret_hash: &token.secret_hash, keys: &keys };
                Ok(certify::login(state, &claim, &fresh, now)?)
            })
            .await?;
        let serial = Serial::parse(&serial)?;
        let chain = self.sign(&Identity::User(name.clone()), &key, &serial, USER_VALIDITY)?;
        Ok(Signed { name, chain, root: self.ca.root_der().to_vec() })
    }

    fn sign(&self, who: &Identity, key: &RequestedKey, serial: &Serial, length: Duration) -> Result<Chain, Problem> {
        self.ca.sign_client(&self.name, who, key, serial, self.ca.validity(self.now(), length))
    }
}
