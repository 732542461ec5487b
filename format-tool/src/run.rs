//! Each verb: the library called, its answer printed, an exit code.

use crate::args::{Args, Form, Verb};
use crate::enrol::Enrolment;
use node_format::{Applied, LinuxHost, Record, Wish, apply, drift, propose};
use node_format_plan::{Action, Contents, Detail, EXAMPLE, Kind, Layout, Plan, Settings, Thing, parse, render};
use plat_model::problem::{Problem, Problems, codes};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

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
                eprintln!("{problem}");
            }
            if problems.0.len() > PROBLEMS_SHOWN {
                eprintln!("and {} more problems", problems.0.len() - PROBLEMS_SHOWN);
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
        Verb::Plan { output } => {
            let (layout, record) = configured(args, &host)?;
            let plan = propose(Wish::new(&layout, Contents::Keep), &mut host, &record)?;
            print(&rendered(&plan, *output, Detail::Things))
        }
        Verb::Verify { output } => {
            let (layout, record) = configured(args, &host)?;
            let plan = drift(Wish::new(&layout, Contents::Keep), &mut host, &record)?;
            if plan.is_empty() && *output == Form::Text {
                return print("the machine is as it was formatted\n");
            }
            print(&rendered(&plan, *output, Detail::Things))?;
            if plan.is_empty() { Ok(Exit::Done) } else { Err(drifted(&plan).into()) }
        }
        Verb::Apply { master, token_file } => {
            let settings = settings(args)?;
            let layout = Layout::new(&settings)?;
            let enrolment = master.as_deref().zip(token_file.as_deref());
            let enrolment =
                enrolment.map(|(master, token)| Enrolment::prepare(master, token, &args.root)).transpose()?;
            change(args, &mut host, &settings.paths.record, Wish::new(&layout, Contents::Keep))?;
            enrolment.map_or(Ok(()), |enrolment| enrolment.run())?;
            Ok(Exit::Done)
        }
        Verb::Reset { erase, record } => {
            let path = match record {
                Some(path) => path.clone(),
                None => settings(args)?.paths.record,
            };
            if !host.beneath_root(&path).exists() {
                return print("nothing to do: there is no record\n");
            }
            let contents = if *erase { Contents::Erase } else { Contents::Keep };
            change(args, &mut host, &path, Wish::new(&Layout::default(), contents))
        }
        Verb::Show { output } => {
            let path = host.beneath_root(&settings(args)?.paths.record);
            let record = Record::read(&path, &host.epoch())?;
            print(&shown(&record, *output))
        }
    }
}

fn change(args: &Args, host: &mut LinuxHost, record: &Path, wish: Wish) -> Result<Exit, Problems> {
    host.stop_on_signals()?;
    let waiting = || eprintln!("waiting for a program that an earlier run started");
    let mut record = Record::open_waiting(&host.beneath_root(record), &host.epoch(), waiting)?;
    let mut progress = |kind: Kind, batch: &[Action]| {
        if batch.len() >= 100 {
            eprintln!("{} ({})", kind.doing(), batch.len());
        }
    };
    let result = apply(wish, host, &mut record, &mut progress);
    let finished = record.finish();
    let Applied { plan } = result?;
    finished?;
    print(&render(&plan, if args.verbose { Detail::Things } else { Detail::Kinds }))
}

fn drifted(plan: &Plan) -> Problem {
    let differences = plan.actions.len() + plan.forget.len();
    Problem::new(codes::DRIFT, "the machine is not as it was formatted")
        .because(format!("it differs in {differences} things, see the list"))
        .fix("`node-format apply` repairs it")
}

fn configured(args: &Args, host: &LinuxHost) -> Result<(Layout, Record), Problems> {
    let settings = settings(args)?;
    let record = Record::read(&host.beneath_root(&settings.paths.record), &host.epoch())?;
    Ok((Layout::new(&settings)?, record))
}

fn settings(args: &Args) -> Result<Settings, Problems> {
    let name = args.config.display().to_string();
    let mut text = String::new();
    let read = std::fs::File::open(&args.config).and_then(|file| file.take(CONFIG_MAX).read_to_string(&mut text));
    read.map_err(|e| {
        Problem::new(codes::BAD_CONFIG, format!("{name} cannot be read"))
            .because(e)
            .fix("`node-format example` prints a configuration to start from")
    })?;
    parse(&name, &text)
}

fn rendered(plan: &Plan, form: Form, detail: Detail) -> String {
    match form {
        Form::Text => render(plan, detail),
        Form::Json => json(plan),
    }
}

fn shown(record: &Record, form: Form) -> String {
    let things: Vec<&Thing> = record.claims().iter().collect();
    match form {
        Form::Json => json(&serde_json::json!({ "version": 1, "made": things })),
        Form::Text => things.iter().fold(String::new(), |text, thing| text + &line(thing)),
    }
}

fn line(thing: &Thing) -> String {
    let place = |path: &PathBuf| path.display().to_string();
    let (noun, name) = match thing {
        Thing::Group { name, gid } => ("group", format!("{name} gid {gid}")),
        Thing::User { name, uid } => ("user", format!("{name} uid {uid}")),
        Thing::Directory { path } | Thing::PartitionDirectory { path } => ("directory", place(path)),
        Thing::DiskLimit { path, .. } => ("disk limit", place(path)),
        Thing::Bridge { name } => ("bridge", name.clone()),
        Thing::Tap { name } => ("tap", name.clone()),
        Thing::Tun { name } => ("tun", name.clone()),
        Thing::Namespace { name, veth } => ("namespace", format!("{name} by {veth}")),
        Thing::Address { link, address } => ("address", format!("{address} on {link}")),
        Thing::LocalRoute { range } => ("local route", range.to_string()),
        Thing::Route(route) => ("route", format!("{} on {}", route.destination, route.link)),
        Thing::Sysctl { key, was } => ("kernel setting", format!("{key}, before {was}")),
        Thing::Guard => ("packet filter table", "plat".into()),
        Thing::Uplink(uplink) => ("uplink", format!("{} on {}", uplink.link, uplink.bridge)),
        Thing::UplinkConfirmed { link } => ("confirmed uplink", link.clone()),
        Thing::File { path } => ("file", place(path)),
    };
    format!("{noun} {name}\n")
}

fn json(value: &impl serde::Serialize) -> String {
    serde_json::to_string_pretty(value).unwrap_or_default() + "\n"
}

/// Prints to standard output; a reader that has gone is no failure of ours.
fn print(text: &str) -> Result<Exit, Problems> {
    let _ = std::io::stdout().lock().write_all(text.as_bytes());
    Ok(Exit::Done)
}
