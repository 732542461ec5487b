//! AdminService: wire → model → one verb of the grid → wire.

use super::views::{node, role};
use super::{caller, page, said, status};
use crate::grid::{Grid, TokenAsk};
use plat_master_plan::certify::TOKEN_VALIDITY;
use plat_master_plan::record::{AuditEntry, Purpose, Token, User};
use plat_model::id::{NodeId, ProjectName, TokenId, UserName};
use plat_model::principal::Role;
use plat_model::problem::codes;
use plat_model::{Problem, Problems};
use plat_wire::IntoModel;
use plat_wire::limits::page_size;
use plat_wire::v1;
use plat_wire::v1::admin_service_server::AdminService;
use plat_wire::v1::create_token_request::Purpose as Asked;
use std::sync::Arc;
use std::time::Duration;
use tonic::{Request, Response, Status};

pub(super) struct Service(pub Arc<Grid>);

type Answer<T> = Result<Response<T>, Status>;

#[tonic::async_trait]
impl AdminService for Service {
    async fn login(&self, request: Request<v1::LoginRequest>) -> Answer<v1::LoginResponse> {
        let caller = caller(&request)?;
        let ask = request.into_inner();
        let signed = self.0.login(&caller, &ask.token, &ask.csr_der).await.map_err(status)?;
        Ok(Response::new(v1::LoginResponse {
            grid: self.0.name().to_string(),
            user: signed.name.to_string(),
            chain_der: signed.chain,
            root_der: signed.root,
        }))
    }

    async fn create_token(&self, request: Request<v1::CreateTokenRequest>) -> Answer<v1::CreateTokenResponse> {
        let caller = caller(&request)?;
        let ask = token_ask(request.into_inner()).map_err(status)?;
        let made = self.0.create_token(&caller, ask).await.map_err(status)?;
        Ok(Response::new(v1::CreateTokenResponse {
            id: made.id.to_string(),
            token: made.text.reveal().to_owned(),
            expires_ms: made.expires.0,
        }))
    }

    async fn list_tokens(&self, request: Request<v1::ListRequest>) -> Answer<v1::ListTokensResponse> {
        let caller = caller(&request)?;
        let ask = request.into_inner();
        let (tokens, next) = self.0.tokens(&caller, &page(ask.page_size, ask.page_token)).await.map_err(status)?;
        let tokens = tokens.into_iter().map(token).collect();
        Ok(Response::new(v1::ListTokensResponse { tokens, next_page_token: next }))
    }

    async fn revoke_token(&self, request: Request<v1::TokenKey>) -> Answer<v1::TokenView> {
        let caller = caller(&request)?;
        let id = TokenId::parse(&request.into_inner().id).map_err(status)?;
        Ok(Response::new(token(self.0.revoke_token(&caller, &id).await.map_err(status)?)))
    }

    async fn revoke_node(&self, request: Request<v1::NodeKey>) -> Answer<v1::NodeView> {
        let caller = caller(&request)?;
        let id = request.into_inner().into_model().map_err(status)?;
        Ok(Response::new(node(self.0.revoke_node(&caller, &id).await.map_err(status)?)))
    }

    async fn label_node(&self, request: Request<v1::LabelNodeRequest>) -> Answer<v1::NodeView> {
        let caller = caller(&request)?;
        let ask = request.into_inner();
        let id = NodeId::parse(&ask.node).map_err(status)?;
        let set = ask.set.into_iter().collect();
        Ok(Response::new(node(self.0.label_node(&caller, &id, &set, &ask.remove).await.map_err(status)?)))
    }

    async fn revoke_user(&self, request: Request<v1::UserKey>) -> Answer<v1::UserView> {
        let caller = caller(&request)?;
        let name = UserName::parse(&request.into_inner().user).map_err(status)?;
        Ok(Response::new(user(self.0.revoke_user(&caller, &name).await.map_err(status)?)))
    }

    async fn list_users(&self, request: Request<v1::ListRequest>) -> Answer<v1::ListUsersResponse> {
        let caller = caller(&request)?;
        let ask = request.into_inner();
        let (users, next) = self.0.users(&caller, &page(ask.page_size, ask.page_token)).await.map_err(status)?;
        Ok(Response::new(v1::ListUsersResponse { users: users.into_iter().map(user).collect(), next_page_token: next }))
    }

    async fn audit(&self, request: Request<v1::AuditRequest>) -> Answer<v1::AuditResponse> {
        let caller = caller(&request)?;
        let ask = request.into_inner();
        let entries = self.0.audit(&caller, ask.after, page_size(ask.page_size)).await.map_err(status)?;
        Ok(Response::new(v1::AuditResponse { entries: entries.into_iter().map(entry).collect() }))
    }
}

fn token_ask(ask: v1::CreateTokenRequest) -> Result<TokenAsk, Problems> {
    let valid = match ask.valid_seconds {
        0 => TOKEN_VALIDITY,
        seconds => Duration::from_secs(seconds.into()),
    };
    let purpose = match ask.purpose {
        Some(Asked::Node(name)) => Purpose::Node(said(&name, NodeId::parse)?),
        Some(Asked::User(user)) => Purpose::User { name: UserName::parse(&user.name)?, role: read_role(&user)? },
        None => {
            return Err(Problem::new(codes::BAD_MESSAGE, "the token has no purpose")
                .fix("say for a node, or for a user")
                .into());
        }
    };
    Ok(TokenAsk { purpose, valid })
}

fn read_role(user: &v1::UserPurpose) -> Result<Role, Problem> {
    match (user.role.as_str(), user.project.as_str()) {
        ("operator", "") => Ok(Role::Operator),
        ("billing", "") => Ok(Role::Billing),
        ("member", project) => ProjectName::parse(project).map(Role::Member),
        ("operator" | "billing", _) => Err(Problem::new(codes::BAD_VALUE, "this role has no project")
            .because("operators and billing readers are of the whole grid")
            .fix("leave the project out, or make a member")),
        (other, _) => {
            Err(Problem::new(codes::BAD_VALUE, format!("`{}` is not a role", plat_model::id::shorten(other)))
                .fix("use operator, member or billing"))
        }
    }
}

fn token(token: Token) -> v1::TokenView {
    let purpose = match &token.purpose {
        Purpose::Node(None) => "node".to_owned(),
        Purpose::Node(Some(name)) => format!("node {name}"),
        Purpose::User { name, role } => format!("user {name} ({role})"),
    };
    v1::TokenView {
        id: token.id.to_string(),
        purpose,
        created_ms: token.created.0,
        expires_ms: token.expires.0,
        used: token.used.is_some(),
        revoked: token.revoked,
    }
}

fn user(user: User) -> v1::UserView {
    let (role, project) = role(&user.role);
    v1::UserView { user: user.name.to_string(), role, project, revoked: user.revoked }
}

fn entry(entry: AuditEntry) -> v1::AuditEntry {
    v1::AuditEntry {
        number: entry.number,
        at_ms: entry.at.0,
        who: entry.who,
        from: entry.from,
        verb: entry.verb,
        subject: entry.subject,
        outcome: entry.outcome,
    }
}
