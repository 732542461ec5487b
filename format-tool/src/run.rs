//! Each verb: the library called, its answer printed, an exit code.

mod init;
mod shown;
mod uplink;

use crate::args::{Args, Form, Verb};
use crate::enrol::Enrolment;
use node_format::{Applied, Epoch, Host, LinuxHost, Record, Wish, apply, drift, propose};
use node_format_plan::{
    Action, Consent, Contents, Detail, EXAMPLE, Kind, Layout, Plan, Scope, Settings, parse, render,
};
use plat_model::problem::{Problem, Problems, codes};
use std::io::{Read, Write};
use std::path::Path;

/// Longest configuration that is read, in bytes; a longer one is refused by the parser.
const CONFIG_MAX: u64 = 2 << 20;
/// Most problems that are printed.
const PROBLEMS_SHOWN: usize = 20;

/// How the process ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    Done = 0,
    Failed = 1,
    Wrong = 2,
    Drift = 3,
    Refused = 4,
    NotUndone = 5,
    NotEnrolled = 6,
}

pub fn run(args: &Args) -> Exit {
    match perform(args) {
        Ok(exit) => exit,
        Err(problems) => {
            for problem in problems.0.iter().take(PROBLEMS_SHOWN) {
                say(&problem.to_string());
            }
            if problems.0.len() > PROBLEMS_SHOWN {
                say(&format!("and {} more problems", problems.0.len() - PROBLEMS_SHOWN));
            }
            exit_of(&problems)
        }
    }
}

fn exit_of(problems: &Problems) -> Exit {
    let has = |code| problems.0.iter().any(|problem| problem.code == code);
    let at_config = |p: &Problem| {
        matches!(p.code, codes::BAD_CONFIG | codes::BAD_NAME | codes::UNKNOWN_KEY | codes::MISSING_KEY)
            || matches!(p.code, codes::DUPLICATE_KEY | codes::TOO_LARGE | codes::USAGE)
            || (p.code == codes::OVERLAP && !p.at.is_empty())
    };
    if has(codes::UNDO_FAILED) {
        Exit::NotUndone
    } else if has(codes::APPLY_FAILED) {
        Exit::Failed
    } else if has(codes::ENROLMENT) {
        Exit::NotEnrolled
    } else if has(codes::DRIFT) {
        Exit::Drift
    } else if problems.0.iter().any(at_config) {
        Exit::Wrong
    } else {
        Exit::Refused
    }
}

fn perform(args: &Args) -> Result<Exit, Problems> {
    let mut host = LinuxHost::new(&args.root)?;
    match &args.verb {
        Verb::Example => print(EXAMPLE),
        Verb::Plan { output, take_uplink, reset, erase } => {
            let (layout, record) =
                if *reset { (Layout::default(), recorded(args, &host)?) } else { configured(args, &mut host)? };
            let consent = Consent { contents: contents(*erase), take_uplink: *take_uplink };
            let plan = propose(Wish::new(&layout, consent), &mut host, &record)?;
            print(&rendered(args, &plan, *output))?;
            if *output == Form::Text && !plan.is_empty() {
                let verb = match (reset, erase, take_uplink) {
                    (true, true, _) => "reset --erase",
                    (true, false, _) => "reset",
                    (false, _, true) => "apply --take-uplink",
                    (false, _, false) => "apply",
                };
                return print(&format!("{}: `node-format {verb}` does it\n", plan.count()));
            }
            Ok(Exit::Done)
        }
        Verb::Verify { output } => {
            settings(args)?; // What is wrong with the configuration is no drift.
            let (layout, record) = configured(args, &mut host).map_err(no_repair)?;
            let plan = drift(Wish::new(&layout, Contents::Keep), &mut host, &record).map_err(no_repair)?;
            if plan.is_empty() && *output == Form::Text {
                return print("the machine is as it was formatted\n");
            }
            print(&rendered(args, &plan, *output))?;
            if plan.is_empty() { Ok(Exit::Done) } else { Err(drifted(&plan).into()) }
        }
        Verb::Init { partitions, stdout } => init::run(args, &mut host, *partitions, *stdout),
        Verb::Apply { take_uplink, confirm_within, master, token_file } => {
            let settings = resolved(args, &mut host)?;
            let layout = Layout::new(&settings)?;
            let enrolment = master.as_deref().zip(token_file.as_deref());
            let enrolment = match enrolment {
                None => None,
                Some((master, token)) => {
                    let enrolment = Enrolment::prepare(master, token, &args.root)?;
                    if enrolment.is_none() {
                        say("this machine is enrolled in that grid already");
                    }
                    enrolment
                }
            };
            let record = &settings.paths.record;
            let consent = Consent { take_uplink: *take_uplink, ..Consent::default() };
            let watch = take_uplink.then(|| uplink::Watch::start(args, *confirm_within)).transpose()?;
            let applied = change(args, &mut host, record, Wish::new(&layout, consent));
            let watch = uplink::settle(watch, applied.is_ok(), &host, record)?;
            applied?;
            if let Some(enrolment) = enrolment {
                enrolment.run()?;
                if watch {
                    // The master was reached over the new network.
                    return uplink::confirm(&host, record, settings.network.uplink.as_deref());
                }
            }
            if watch {
                say(&format!("run `node-format confirm` within {confirm_within} s, or the old network comes back"));
            }
            Ok(Exit::Done)
        }
        Verb::Confirm => {
            let settings = settings(args)?;
            uplink::confirm(&host, &settings.paths.record, settings.network.uplink.as_deref())
        }
        Verb::Rollback { after, run } => {
            let patience = after.zip(*run).map(|(seconds, run)| uplink::Patience { seconds, run });
            uplink::rollback(&mut host, &settings(args)?.paths.record, patience)
        }
        Verb::Reset { erase, record } => {
            let path = match record {
                Some(path) => path.clone(),
                None => settings(args)?.paths.record,
            };
            if !host.beneath_root(&path).exists() {
                if record.is_some() {
                    let problem = Problem::new(codes::RECORD, format!("there is no record {}", path.display()));
                    return Err(problem.fix("name the one that `paths.record` of the configuration named").into());
                }
                return print("nothing to do: there is no record\n");
            }
            change(args, &mut host, &path, Wish::new(&Layout::default(), contents(*erase)))
        }
        Verb::Show { output } => print(&shown::record(&recorded(args, &host)?, *output)),
    }
}

fn change(args: &Args, host: &mut LinuxHost, record: &Path, wish: Wish) -> Result<Exit, Problems> {
    host.stop_on_signals()?;
    let waiting = || say("waiting for a program that an earlier run started");
    let mut record = Record::open_waiting(&host.beneath_root(record), &Epoch::current(), waiting)?;
    let mut progress = |kind: Kind, batch: &[Action]| {
        if batch.len() >= 100 {
            say(&format!("{} ({})", kind.doing(), batch.len()));
        }
    };
    let result = apply(wish, host, &mut record, &mut progress);
    let finished = record.finish();
    let Applied { plan, excused } = result?;
    finished?;
    say_excused(&excused);
    print(&render(&plan, if args.verbose { Detail::Things } else { Detail::Kinds }))
}

/// What a partition's user may have kept from being done: nothing else is the worse for it.
fn say_excused(excused: &[Problem]) {
    for problem in excused {
        say(&format!("left as it is, for a partition's user can keep it so: {}", problem.one_line()));
    }
}

fn drifted(plan: &Plan) -> Problem {
    Problem::new(codes::DRIFT, "the machine is not as it was formatted")
        .because(format!("see the list: {}", plan.count()))
        .fix("`node-format apply` repairs it")
}

/// What keeps `apply` from repairing the machine, besides that it is not as it was formatted.
fn no_repair(mut problems: Problems) -> Problems {
    let drift = Problem::new(codes::DRIFT, "the machine is not as it was formatted");
    problems.push(drift.because("what is in the way of its repair is said above").fix("see to that first"));
    problems
}

fn contents(erase: bool) -> Contents {
    if erase { Contents::Erase } else { Contents::Keep }
}

fn recorded(args: &Args, host: &LinuxHost) -> Result<Record, Problems> {
    Ok(Record::read(&host.beneath_root(&settings(args)?.paths.record), &Epoch::current())?)
}

fn configured(args: &Args, host: &mut LinuxHost) -> Result<(Layout, Record), Problems> {
    let settings = resolved(args, host)?;
    let record = Record::read(&host.beneath_root(&settings.paths.record), &Epoch::current())?;
    Ok((Layout::new(&settings)?, record))
}

/// The settings with what they leave to the machine.
fn resolved(args: &Args, host: &mut LinuxHost) -> Result<Settings, Problems> {
    let settings = settings(args)?;
    if !settings.needs_the_machine() {
        return Ok(settings);
    }
    let facts = host.observe(&Scope { network: true, ..Scope::default() })?;
    settings.resolve(&facts)
}

fn settings(args: &Args) -> Result<Settings, Problems> {
    let name = args.config.display().to_string();
    let mut text = String::new();
    let read = std::fs::File::open(&args.config).and_then(|file| file.take(CONFIG_MAX).read_to_string(&mut text));
    read.map_err(|e| {
        Problem::new(codes::BAD_CONFIG, format!("{name} cannot be read"))
            .because(e)
            .fix("`node-format init` writes one that fits this machine, `node-format example` prints every key")
    })?;
    parse(&name, &text)
}

/// Most things that are said one by one without being asked to.
const THINGS_SHOWN: usize = 60;

fn rendered(args: &Args, plan: &Plan, form: Form) -> String {
    let each = args.verbose || plan.actions.len() <= THINGS_SHOWN;
    match form {
        Form::Text if each => render(plan, Detail::Things),
        Form::Text => render(plan, Detail::Kinds) + "(`-v` shows each thing)\n",
        Form::Json => json(plan),
    }
}

fn json(value: &impl serde::Serialize) -> String {
    serde_json::to_string_pretty(value).unwrap_or_default() + "\n"
}

/// A line to standard error, which may have gone with the terminal: a run goes on without.
fn say(line: &str) {
    let _ = writeln!(std::io::stderr().lock(), "{line}");
}

/// Prints to standard output; a reader that has gone is no failure of ours.
fn print(text: &str) -> Result<Exit, Problems> {
    let _ = std::io::stdout().lock().write_all(text.as_bytes());
    Ok(Exit::Done)
}
