//! What operators do to the grid itself: tokens, nodes, users, the audit log.

use super::show::{self, NodeView, Page};
use super::{Caller, Grid};
use crate::pki::invitation::Invitation;
use plat_master_plan::access::{Subject, authorize};
use plat_master_plan::certify;
use plat_master_plan::record::{AuditEntry, Purpose, Token, User};
use plat_model::id::{NodeId, TokenId, UserName};
use plat_model::parameters::Secret;
use plat_model::{Problem, Problems, Timestamp};
use std::collections::BTreeMap;
use std::time::Duration;

/// A token that is asked for.
#[derive(Debug, Clone)]
pub struct TokenAsk {
    pub purpose: Purpose,
    pub valid: Duration,
}

/// A token as it is shown, once.
#[derive(Debug)]
pub struct CreatedToken {
    pub id: TokenId,
    pub text: Secret,
    pub expires: Timestamp,
}

impl Grid {
    /// Makes a token.
    ///
    /// # Errors
    /// As [`certify::create_token`].
    pub async fn create_token(&self, caller: &Caller, ask: TokenAsk) -> Result<CreatedToken, Problems> {
        let made = Invitation::new(self.ca.root_der())?;
        let token = self
            .change(caller, &Subject::Grid, |state, now| {
                let (id, hash) = (made.id.clone(), made.secret_hash.clone());
                Ok(certify::create_token(state, id, hash, ask.purpose.clone(), ask.valid, now)?)
            })
            .await?;
        Ok(CreatedToken { id: made.id, text: made.text, expires: token.expires })
    }

    /// All tokens, used and expired ones as long as they are kept.
    ///
    /// # Errors
    /// The caller may not, or the store failed.
    pub async fn tokens(&self, caller: &Caller, page: &Page) -> Result<(Vec<Token>, String), Problem> {
        self.look(caller, &Subject::Grid, |state| page.of(&state.tokens, TokenId::parse, Token::clone)).await
    }

    /// Makes a token useless.
    ///
    /// # Errors
    /// As [`certify::revoke_token`].
    pub async fn revoke_token(&self, caller: &Caller, id: &TokenId) -> Result<Token, Problems> {
        self.change(caller, &Subject::Grid, |state, _| Ok(certify::revoke_token(state, id)?)).await
    }

    /// Takes a node's certificates from it, at once and for good. Its instances stay as they are until it is asked for
    /// by a new token.
    ///
    /// # Errors
    /// As [`certify::revoke_node`].
    pub async fn revoke_node(&self, caller: &Caller, node: &NodeId) -> Result<NodeView, Problems> {
        let subject = Subject::Node(node.clone());
        self.change(caller, &subject, |state, now| Ok(certify::revoke_node(state, node, now)?)).await?;
        tracing::info!(%node, "node revoked");
        self.node_after(node).await
    }

    /// Sets and removes labels of a node.
    ///
    /// # Errors
    /// As [`certify::label_node`].
    pub async fn label_node(
        &self,
        caller: &Caller,
        node: &NodeId,
        set: &BTreeMap<String, String>,
        remove: &[String],
    ) -> Result<NodeView, Problems> {
        let subject = Subject::Node(node.clone());
        self.change(caller, &subject, |state, _| Ok(certify::label_node(state, node, set, remove)?)).await?;
        self.node_after(node).await
    }

    async fn node_after(&self, node: &NodeId) -> Result<NodeView, Problems> {
        let snapshot = self.store.snapshot();
        let view = show::node(&snapshot.state, node, self);
        self.store.settled(snapshot.revision).await?;
        view.ok_or_else(|| show::no_node(node).into())
    }

    /// Takes a user's certificate from him, at once.
    ///
    /// # Errors
    /// As [`certify::revoke_user`].
    pub async fn revoke_user(&self, caller: &Caller, user: &UserName) -> Result<User, Problems> {
        let subject = Subject::User(user.clone());
        self.change(caller, &subject, |state, _| Ok(certify::revoke_user(state, user)?)).await
    }

    /// All users.
    ///
    /// # Errors
    /// The caller may not, or the store failed.
    pub async fn users(&self, caller: &Caller, page: &Page) -> Result<(Vec<User>, String), Problem> {
        self.look(caller, &Subject::Grid, |state| page.of(&state.users, UserName::parse, User::clone)).await
    }

    /// The audit log after entry number `after`.
    ///
    /// # Errors
    /// The caller may not, or the store failed.
    pub async fn audit(&self, caller: &Caller, after: u64, limit: usize) -> Result<Vec<AuditEntry>, Problem> {
        let state = self.store.snapshot().state;
        authorize(&state, &caller.principal, caller.rpc, &Subject::Grid)?;
        self.store.audit(after, limit).await
    }
}
