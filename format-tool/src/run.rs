//! Each verb: the library called, its answer printed, an exit code.

mod apart;
mod configuration;
mod init;
mod journal;
mod shown;
mod uplink;
mod watches;

use crate::args::{Args, Form, Verb};
use crate::enrol::Enrolment;
use configuration::Configuration;
use node_format::{Applied, Epoch, LinuxHost, Record, Wish, apply, drift, propose};
use node_format_plan::{Action, Consent, Contents, Detail, EXAMPLE, Kind, Layout, Plan, render};
use plat_model::problem::{Problem, Problems, codes};
use std::io::Write;
use std::path::{Path, PathBuf};

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
            let mut config = Configuration::read(args)?;
            let layout = if *reset { Layout::default() } else { config.layout(&mut host)? };
            let record = config.record(&host)?;
            let consent = Consent { contents: contents(*erase), take_uplink: *take_uplink };
            let plan = propose(Wish::new(&layout, consent), &mut host, &record).map_err(|p| config.located(p))?;
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
            let mut config = Configuration::read(args)?; // What is wrong with it in itself is no drift.
            let layout = config.layout(&mut host).map_err(no_repair)?;
            let record = config.record(&host)?;
            let plan = drift(Wish::new(&layout, Contents::Keep), &mut host, &record);
            let plan = plan.map_err(|problems| no_repair(config.located(problems)))?;
            if plan.is_satisfied() && *output == Form::Text {
                return print(&(noted(&plan) + "the machine is as it was formatted\n"));
            }
            print(&rendered(args, &plan, *output))?;
            if plan.is_satisfied() { Ok(Exit::Done) } else { Err(drifted(&plan).into()) }
        }
        Verb::Init { partitions, stdout } => init::run(args, &mut host, *partitions, *stdout),
        Verb::Apply { take_uplink, confirm_within, master, token_file } => {
            let mut config = Configuration::read(args)?;
            let layout = config.layout(&mut host)?;
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
            let record = &config.settings.paths.record;
            let consent = Consent { take_uplink: *take_uplink, ..Consent::default() };
            let watch = take_uplink.then(|| uplink::Watch::start(args, record, *confirm_within)).transpose()?;
            let applied = change(args, &mut host, record, Wish::new(&layout, consent));
            let waits = watch.map(|watch| uplink::settle(watch, &host, record, &config.epoch, applied.is_err()));
            let waits = waits.transpose();
            if matches!(waits, Ok(Some(true))) {
                // Said before the enrolment, which may fail.
                let by = if enrolment.is_some() && applied.is_ok() { "the enrolment, or by " } else { "" };
                let unless = format!("unless it is confirmed by {by}`node-format confirm`");
                say(&format!("the old network comes back within {confirm_within} s {unless}"));
            }
            if let Err(problems) = applied {
                let mut problems = config.located(problems);
                problems.extend(waits.err());
                return Err(problems);
            }
            let waits = waits?.unwrap_or(false);
            let Some(enrolment) = enrolment else { return Ok(Exit::Done) };
            enrolment.run()?;
            if waits {
                // The master was reached over the new network.
                return uplink::confirm(&host, record, &config.epoch, config.settings.network.uplink.as_deref());
            }
            Ok(Exit::Done)
        }
        Verb::Confirm => {
            let Configuration { settings, epoch, .. } = Configuration::read(args)?;
            uplink::confirm(&host, &settings.paths.record, &epoch, settings.network.uplink.as_deref())
        }
        Verb::Rollback { after, run, record } => {
            let patience = after.zip(*run).map(|(seconds, run)| uplink::Patience { seconds, run });
            // Whoever waits for a run is there before its record.
            let path = match record.as_ref().filter(|_| patience.is_some()) {
                Some(record) => record.clone(),
                None => record_path(args, record.as_ref(), &host)?,
            };
            uplink::rollback(&mut host, &path, &Epoch::current().alone(args.links_gone), patience)
        }
        Verb::Reset { erase, record } => {
            let path = record_path(args, record.as_ref(), &host)?;
            let at = host.beneath_root(&path);
            if !Record::exists(&at)? {
                Record::clear_left(&at, &Epoch::current().alone(args.links_gone))?;
                return print("nothing to do: there is no record\n");
            }
            change(args, &mut host, &path, Wish::new(&Layout::default(), contents(*erase)))
        }
        Verb::Show { output } => print(&shown::record(&Configuration::read(args)?.record(&host)?, *output)),
    }
}

/// The record that is named, which must be there, or else that of the configuration.
fn record_path(args: &Args, named: Option<&PathBuf>, host: &LinuxHost) -> Result<PathBuf, Problems> {
    let Some(path) = named else { return Ok(Configuration::read(args)?.settings.paths.record) };
    if Record::exists(&host.beneath_root(path))? {
        return Ok(path.clone());
    }
    let problem = Problem::new(codes::RECORD, format!("there is no record {}", path.display()));
    Err(problem.fix("name the one that `paths.record` of the configuration named").into())
}

fn change(args: &Args, host: &mut LinuxHost, record: &Path, wish: Wish) -> Result<Exit, Problems> {
    host.stop_on_signals()?;
    let waiting = || say("waiting for an earlier run, or a program that it started");
    let mut record =
        Record::open_waiting(&host.beneath_root(record), &Epoch::current().alone(args.links_gone), waiting)?;
    let mut progress = |kind: Kind, batch: &[Action]| {
        if batch.len() >= 100 {
            say(&format!("{} ({})", kind.doing(), batch.len()));
        }
    };
    let result = apply(wish, host, &mut record, &mut progress);
    let finished = record.finish();
    let Applied { plan, excused } = result?;
    say_excused(&excused);
    let done = print(&render(&plan, if args.verbose { Detail::Things } else { Detail::Kinds }))?;
    // What was done is said first.
    if let Some(left) = finished? {
        say(&format!("! {} is left: it holds something else", left.display()));
    }
    Ok(done)
}

/// What a partition's user may have kept from being done: nothing else is the worse for it.
fn say_excused(excused: &[Problem]) {
    for problem in excused {
        say(&format!("left as it is, for a partition's user can keep it so: {}", problem.one_line()));
    }
}

fn drifted(plan: &Plan) -> Problem {
    let drift = Problem::new(codes::DRIFT, codes::DRIFT.title());
    if plan.is_empty() {
        return drift.because("see what is left as it is").fix("do what is said there, then run `node-format apply`");
    }
    drift.because(format!("see the list: {}", plan.count())).fix("`node-format apply` makes it so")
}

/// What keeps `apply` from making the machine as the configuration says is proof that it is not. A failure to look at
/// it is none.
fn no_repair(mut problems: Problems) -> Problems {
    let is_found = |problem: &Problem| {
        matches!(problem.code, codes::FOREIGN | codes::OVERLAP | codes::STILL_USED | codes::UPLINK)
            || matches!(problem.code, codes::KERNEL_LACKS | codes::PREREQUISITE | codes::BAD_CONFIG)
    };
    if problems.0.iter().all(is_found) {
        let drift = Problem::new(codes::DRIFT, codes::DRIFT.title());
        problems.push(drift.because("what is in the way is said above").fix("see to that first"));
    }
    problems
}

fn contents(erase: bool) -> Contents {
    if erase { Contents::Erase } else { Contents::Keep }
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

/// What a plan leaves as it is, a line each.
fn noted(plan: &Plan) -> String {
    plan.notes.iter().fold(String::new(), |text, note| text + "! " + note + "\n")
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
