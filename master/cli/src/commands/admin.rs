//! Tokens, users, the audit log, and who one is.

use super::{Context, confirm, done, pages};
use crate::Result;
use crate::args::{AuditArgs, Output, TokenCommand, UserCommand};
use crate::output;
use crate::view::{AuditView, MeView, NewTokenView, TokenView, UserView};
use plat_model::problem::codes;
use plat_model::{Problem, Timestamp};
use plat_wire::v1;
use plat_wire::v1::create_token_request::Purpose;
use std::collections::VecDeque;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::Duration;

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
                                .fix("add --member PROJECT, --operator or --billing")
                                .into());
                        }
                    };
                    Purpose::User(v1::UserPurpose { name, role: role.into(), project: member.unwrap_or_default() })
                }
            };
            let ask = v1::CreateTokenRequest { purpose: Some(purpose), valid_seconds: seconds(valid) };
            let answer = context.ask(session.admin().create_token(ask)).await?;
            let expires = Timestamp(answer.expires_ms);
            match out {
                Some(file) => {
                    write_secret(&file, &answer.token)?;
                    done(&format!("token {} is in {}; it is good once, until {expires}", answer.id, file.display()));
                    match context.printer.format {
                        Output::Table | Output::Wide => Ok(()),
                        _ => context.printer.one(&NewTokenView::in_file(answer, &file)),
                    }
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
        TokenCommand::Revoke { id, yes } => {
            confirm(yes, &format!("make token {id} worthless?"))?;
            let answer = context.ask(session.admin().revoke_token(v1::TokenKey { id })).await?;
            context.printer.one(&TokenView::from(answer))
        }
    }
}

/// For the wire, which bounds it.
fn seconds(span: Duration) -> u32 {
    u32::try_from(span.as_secs()).unwrap_or(u32::MAX)
}

/// Writes a new file that only its owner can read. Refuses one that is there already.
pub fn write_secret(file: &Path, text: &str) -> Result<(), Problem> {
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
        UserCommand::Revoke { user, yes } => {
            confirm(yes, &format!("shut user {user} out?"))?;
            let answer = context.ask(session.admin().revoke_user(v1::UserKey { user })).await?;
            context.printer.one(&UserView::from(answer))
        }
    }
}

/// As many at once as the master gives.
const PAGE: u32 = 1000;
/// Entries of the audit log that are shown unless it is said how many.
const NEWEST: usize = 50;

pub async fn audit(context: &Context, args: AuditArgs) -> Result<()> {
    let session = context.session().await?;
    let most = args.lines.unwrap_or(if args.after.is_some() { usize::MAX } else { NEWEST });
    let who = args.user.map(|name| format!("user/{name}"));
    let mut newest = VecDeque::new();
    let mut after = args.after.unwrap_or(0);
    loop {
        let page = context.ask(session.admin().audit(v1::AuditRequest { after, page_size: PAGE })).await?;
        let Some(last) = page.entries.last() else { break };
        after = last.number;
        newest.extend(page.entries.into_iter().filter(|entry| who.as_ref().is_none_or(|who| *who == entry.who)));
        newest.drain(..newest.len().saturating_sub(most));
    }
    context.printer.list(&newest.into_iter().map(AuditView::from).collect::<Vec<_>>())
}

pub async fn whoami(context: &Context) -> Result<()> {
    let session = context.session().await?;
    let me = context.ask(session.grid().who_am_i(v1::WhoAmIRequest {})).await?;
    output::note(&format!("at {}", session.url()));
    context.printer.one(&MeView::new(me, session.expires()))
}
