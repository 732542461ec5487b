//! What each command does: resolve names, call the grid, print. What all of them share is here.

use crate::Result;
use crate::args::{Cli, Command, Global};
use crate::output::{self, Printer};
use crate::profile;
use crate::session::Session;
use plat_model::Problem;
use plat_model::problem::codes;
use plat_wire::v1;
use std::io::{IsTerminal, Read, Write};
use std::path::Path;
use std::process::ExitCode;

mod admin;
pub use admin::write_secret;
mod explain;
mod instance;
mod login;
mod man;
mod node;
mod release;
mod run;
mod usage;

/// What a command works with.
pub struct Context {
    pub global: Global,
    pub printer: Printer,
}

/// Runs one command, and says with which code to exit.
///
/// # Errors
/// What failed, for the person at the terminal.
pub async fn run(cli: Cli) -> Result<ExitCode> {
    let printer = Printer { format: cli.global.output, plain: cli.global.plain };
    let context = Context { global: cli.global, printer };
    let done = match cli.command {
        Command::Run(args) => return run::run(&context, args).await,
        Command::Request(args) => instance::request(&context, args).await,
        Command::List(args) => instance::list(&context, args).await,
        Command::Show(args) => instance::show(&context, args).await,
        Command::Start(args) => instance::set_wish(&context, args, v1::Wish::Started).await,
        Command::Stop(args) => instance::set_wish(&context, args, v1::Wish::Stopped).await,
        Command::Destroy(args) => instance::destroy(&context, args).await,
        Command::Undestroy(args) => instance::undestroy(&context, args).await,
        Command::Logs(args) => instance::logs(&context, args).await,
        Command::Explain(args) => explain::explain(&context, args).await,
        Command::Usage(args) => usage::usage(&context, args).await,
        Command::Statement(args) => usage::statement(&context, args).await,
        Command::Release(command) => release::run(&context, command).await,
        Command::Supply(args) => release::supply(&context, args).await,
        Command::Node(command) => node::run(&context, command).await,
        Command::Token(command) => admin::token(&context, command).await,
        Command::User(command) => admin::user(&context, command).await,
        Command::Rates(command) => usage::rates(&context, command).await,
        Command::Ledger(args) => usage::ledger(&context, args).await,
        Command::Man { dir } => man::write(&dir),
        Command::Audit(args) => admin::audit(&context, args).await,
        Command::Login(args) => login::login(&context, args).await,
        Command::Whoami => admin::whoami(&context).await,
        Command::Dev(args) => crate::dev::run(&context, args).await,
        Command::Completions { shell } => {
            let mut command = <Cli as clap::CommandFactory>::command();
            let mut text = Vec::new();
            clap_complete::generate(shell, &mut command, "plat", &mut text);
            context.printer.text(&String::from_utf8_lossy(&text))
        }
    };
    done.map(|()| ExitCode::SUCCESS)
}

impl Context {
    /// A connection to the grid of the profile.
    pub async fn session(&self) -> Result<Session> {
        Ok(Session::open(&profile::folder(self.global.profile.as_deref())?).await?)
    }

    /// The project that was named; empty for the caller's own.
    pub fn project(&self) -> String {
        self.global.project.clone().unwrap_or_default()
    }

    /// The project that was named, else the caller's own by name.
    pub async fn project_or_own(&self, session: &Session) -> Result<String> {
        if let Some(project) = &self.global.project {
            return Ok(project.clone());
        }
        let me = self.ask(session.grid().who_am_i(v1::WhoAmIRequest {})).await?;
        Ok(if me.project.is_empty() { "default".into() } else { me.project })
    }

    /// The key of one instance.
    pub fn key(&self, name: &str) -> v1::InstanceKey {
        v1::InstanceKey { project: self.project(), name: name.to_owned() }
    }

    /// One call, its failure as a problem.
    pub async fn ask<T>(
        &self,
        call: impl Future<Output = std::result::Result<tonic::Response<T>, tonic::Status>>,
    ) -> Result<T> {
        call.await.map(tonic::Response::into_inner).map_err(|status| plat_wire::status::to_problems(&status))
    }

    /// The next message of a stream; `None` at its end.
    pub async fn next<T>(&self, stream: &mut tonic::Streaming<T>) -> Result<Option<T>> {
        stream.message().await.map_err(|status| plat_wire::status::to_problems(&status))
    }
}

/// Shows something once, or again each time that the grid changes.
pub struct Watch {
    on: bool,
    clear: bool,
    stream: Option<tonic::Streaming<v1::GridNudge>>,
}

impl Watch {
    pub fn new(context: &Context, on: bool) -> Self {
        let clear = on && !context.global.plain && std::io::stdout().is_terminal();
        Self { on, clear, stream: None }
    }

    pub fn show(&mut self, print: impl FnOnce() -> Result<()>) -> Result<()> {
        if self.clear {
            // Home, and erase what is below: the view stands still while its contents change.
            print!("\x1b[H\x1b[J");
        }
        print()
    }

    /// Waits for the next change. `false` if there is nothing to watch.
    pub async fn next(&mut self, session: &Session) -> Result<bool> {
        if !self.on {
            return Ok(false);
        }
        let problem = |status: tonic::Status| plat_wire::status::to_problems(&status);
        let stream = match &mut self.stream {
            Some(stream) => stream,
            // The first nudge comes at once: what changed between the first print and this call is not missed.
            none => {
                none.insert(session.grid().watch_grid(v1::WatchGridRequest {}).await.map_err(problem)?.into_inner())
            }
        };
        Ok(stream.message().await.map_err(problem)?.is_some())
    }
}

/// A file's text, or standard input's for `-`; at most 16 MiB.
pub fn read_text(file: &Path) -> Result<String> {
    const MOST: u64 = 16 << 20;
    let wrong = |e: std::io::Error| Problem::new(codes::FILE, format!("cannot read {}", file.display())).because(e);
    let mut text = String::new();
    let read = if file == Path::new("-") {
        std::io::stdin().lock().take(MOST + 1).read_to_string(&mut text)
    } else {
        std::fs::File::open(file).map_err(wrong)?.take(MOST + 1).read_to_string(&mut text)
    };
    if read.map_err(wrong)? as u64 > MOST {
        let too_large = Problem::new(codes::TOO_LARGE, format!("{} is too large", file.display()));
        return Err(too_large.because("more than 16 MiB").into());
    }
    Ok(text)
}

/// Asks before something dangerous. Without a terminal only `--yes` will do.
pub fn confirm(yes: bool, question: &str) -> Result<()> {
    if yes {
        return Ok(());
    }
    let refused = |why: &str| {
        let nothing = Problem::new(codes::USAGE, "nothing was done").because(why);
        Err(nothing.fix("add --yes to do it without being asked").into())
    };
    if !std::io::stdin().is_terminal() {
        return refused("there is nobody to ask: standard input is not a terminal");
    }
    eprint!("{question} [y/N] ");
    let _ = std::io::stderr().flush();
    let mut answer = String::new();
    let read = std::io::stdin().read_line(&mut answer);
    match answer.trim().to_lowercase().as_str() {
        "y" | "yes" if read.is_ok() => Ok(()),
        _ => refused("the answer was not yes"),
    }
}

/// All pages of a list.
pub async fn pages<T, F>(mut page: impl FnMut(v1::ListRequest) -> F) -> Result<Vec<T>>
where
    F: Future<Output = Result<(Vec<T>, String)>>,
{
    let mut all = Vec::new();
    let mut page_token = String::new();
    loop {
        let (items, next) = page(v1::ListRequest { page_size: 0, page_token }).await?;
        all.extend(items);
        if next.is_empty() {
            return Ok(all);
        }
        page_token = next;
    }
}

/// Says on standard error that something was done.
pub fn done(text: &str) {
    output::note(text);
}
