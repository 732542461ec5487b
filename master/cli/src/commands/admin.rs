//! Tokens, users, the audit log, and who one is.

use super::{Context, done, pages};
use crate::args::{AuditArgs, TokenCommand, UserCommand};
use crate::output;
use crate::view::{AuditView, MeView, NewTokenView, TokenView, UserView};
use plat_model::problem::codes;
use plat_model::{Problem, Result, Timestamp};
use plat_wire::v1;
use plat_wire::v1::create_token_request::Purpose;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

pub async fn token(context: &Context, command: TokenCommand) -> Result<()> {
    let session = context.session().await?;
    match command {
        TokenCommand::Create { node, user, member, operator, billing, valid, out } => {
            let purpose = match user {
                None => Purpose::Node(node.unwrap_or_default()),
                Some(name) => {
                    let role = match (&member, operator, billing) {
                        (Some(_), ..) => "member",
                        (None, true, _) => "operator",
                        (None, false, true) => "billing",
                        (None, false, false) => {
                            return Err(Problem::new(codes::USAGE, "what may the user do?")
                                .fix("add --member PROJECT, --operator or --billing"));
                        }
                    };
                    Purpose::User(v1::UserPurpose { name, role: role.into(), project: member.unwrap_or_default() })
                }
            };
            let ask = v1::CreateTokenRequest { purpose: Some(purpose), valid_seconds: valid };
            let answer = context.ask(session.admin().create_token(ask)).await?;
            let expires = Timestamp(answer.expires_ms);
            match out {
                Some(file) => {
                    write_secret(&file, &answer.token)?;
                    done(&format!("token {} is in {}; it is good once, until {expires}", answer.id, file.display()));
                    Ok(())
                }
                None => {
                    done(&format!("token {}, good once, until {expires}; it is not shown again:", answer.id));
                    context.printer.one(&NewTokenView::from(answer))
                }
            }
        }
        TokenCommand::List => {
            let page = |ask: v1::ListRequest| {
                let mut admin = session.admin();
                async move {
                    let page = context.ask(admin.list_tokens(ask)).await?;
                    Ok((page.tokens.into_iter().map(TokenView::from).collect(), page.next_page_token))
                }
            };
            context.printer.list::<TokenView>(&pages(page).await?)
        }
        TokenCommand::Revoke { id } => {
            let answer = context.ask(session.admin().revoke_token(v1::TokenKey { id })).await?;
            context.printer.one(&TokenView::from(answer))
        }
    }
}

/// Writes a new file that only its owner can read. Refuses one that is there already.
pub fn write_secret(file: &Path, text: &str) -> Result<()> {
    let wrong = |e: std::io::Error| Problem::new(codes::FILE, format!("cannot write {}", file.display())).because(e);
    let mut out = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(file).map_err(wrong)?;
    out.write_all(text.as_bytes()).and_then(|()| out.write_all(b"\n")).and_then(|()| out.sync_all()).map_err(wrong)
}

pub async fn user(context: &Context, command: UserCommand) -> Result<()> {
    let session = context.session().await?;
    match command {
        UserCommand::List => {
            let page = |ask: v1::ListRequest| {
                let mut admin = session.admin();
                async move {
                    let page = context.ask(admin.list_users(ask)).await?;
                    Ok((page.users.into_iter().map(UserView::from).collect(), page.next_page_token))
                }
            };
            context.printer.list::<UserView>(&pages(page).await?)
        }
        UserCommand::Revoke { user } => {
            let answer = context.ask(session.admin().revoke_user(v1::UserKey { user })).await?;
            context.printer.one(&UserView::from(answer))
        }
    }
}

pub async fn audit(context: &Context, args: AuditArgs) -> Result<()> {
    let session = context.session().await?;
    let mut entries = Vec::new();
    let mut after = args.after;
    loop {
        let page = context.ask(session.admin().audit(v1::AuditRequest { after, page_size: 0 })).await?;
        let Some(last) = page.entries.last() else { break };
        after = last.number;
        entries.extend(page.entries.into_iter().map(AuditView::from));
    }
    context.printer.list(&entries)
}

pub async fn whoami(context: &Context) -> Result<()> {
    let session = context.session().await?;
    let me = context.ask(session.grid().who_am_i(v1::WhoAmIRequest {})).await?;
    output::note(&format!("at {}", session.url()));
    context.printer.one(&MeView::from(me))
}
