//! `plat-instance`: the other end of an instance's socket, for scripts.

mod args;
mod talk;

use args::{Args, Command, Format, How, RequestArgs};
use clap::Parser;
use plat_model::Problem;
use plat_model::instance::{InstanceState, Wish};
use plat_model::problem::codes;
use plat_model::tree::Child;
use serde_json::{Map, Value, json};
use std::process::ExitCode;
use std::thread::park_timeout;
use std::time::{Duration, Instant};
use talk::Talk;

/// What ends so that a script can tell it from a failure: it is not there yet.
const NOT_YET: u8 = 3;
/// How often is asked whether what is waited for has come.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// The whole program.
pub fn main() -> ExitCode {
    let args = Args::parse();
    match run(&args) {
        Ok(code) => code,
        Err(problem) => {
            eprintln!("{problem}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &Args) -> Result<ExitCode, Problem> {
    let mut talk = Talk::open(args.socket.as_deref())?;
    let done = Ok(ExitCode::SUCCESS);
    match &args.command {
        Command::Get { key } => {
            let known = talk.ask(&json!({ "ask": "get" }))?;
            return Ok(match key {
                None => print(args.output, &known, known["parameters"].as_object()),
                Some(key) => print_one(&known["parameters"], key),
            });
        }
        Command::Shared => {
            let known = talk.ask(&json!({ "ask": "get" }))?;
            let shared = known["shared"].as_array().cloned().unwrap_or_default();
            match args.output {
                Format::Json => println!("{}", Value::Array(shared)),
                Format::Text => shared.iter().for_each(|one| {
                    println!("{} {} {}", text(&one["id"]), text(&one["name"]), one["parameters"]);
                }),
            }
        }
        Command::Publish { pairs, remove, shared } => {
            let mut connection = pairs_of(pairs)?;
            connection.extend(remove.iter().map(|key| (key.clone(), Value::Null)));
            talk.ask(&json!({ "ask": "publish", "connection": connection, "shared": shared }))?;
        }
        Command::Status { how, text } => {
            talk.ask(&json!({ "ask": "status", "well": *how == How::Ok, "text": text }))?;
        }
        Command::Request(request) => return requested(&mut talk, args.output, request),
        Command::Children => {
            let children = talk.ask(&json!({ "ask": "children" }))?;
            match args.output {
                Format::Json => println!("{children}"),
                Format::Text => children.as_array().into_iter().flatten().for_each(|child| {
                    println!("{} {} {}", text(&child["name"]), text(&child["state"]), text(&child["instance"]));
                }),
            }
        }
        Command::Bang => drop(talk.ask(&json!({ "ask": "bang" }))?),
    }
    done
}

fn requested(talk: &mut Talk, output: Format, args: &RequestArgs) -> Result<ExitCode, Problem> {
    let until = Instant::now() + Duration::from_secs(args.timeout);
    let mut ask = question(args)?;
    let child = loop {
        let answer = talk.ask(&ask)?;
        if answer.is_null() {
            return Ok(ExitCode::SUCCESS);
        }
        let child: Child = serde_json::from_value(answer).map_err(|why| talk::not_understood(&why))?;
        let arrived = is_as_wished(&child);
        if arrived || !args.wait {
            break child;
        }
        if Instant::now() >= until {
            eprintln!("{} is {} still: {}", child.name, child.state, child.detail);
            return Ok(ExitCode::from(NOT_YET));
        }
        park_timeout(LOOK_AGAIN);
        // What it is to be has been said.
        ask = json!({ "ask": "request", "name": args.name });
    };
    let connection = json!(child.connection);
    if let Some(key) = &args.get {
        return Ok(print_one(&connection, key));
    }
    if output == Format::Text {
        eprintln!("{} is {}", child.name, child.state);
    }
    Ok(print(output, &json!(child), connection.as_object()))
}

fn is_as_wished(child: &Child) -> bool {
    match child.wish {
        Wish::Started => child.current && child.state == InstanceState::Ready,
        Wish::Stopped => child.current && child.state == InstanceState::Stopped,
        Wish::Destroyed => false,
    }
}

fn question(args: &RequestArgs) -> Result<Value, Problem> {
    let parameters = match &args.params {
        Some(file) => Some(talk::read_json(file)?),
        None if args.param.is_empty() => None,
        None => Some(pairs_of(&args.param)?),
    };
    let limited = args.cpu_millis.is_some() || args.memory.is_some() || args.disk.is_some();
    let resources = limited.then(|| {
        json!({ "cpu_millis": args.cpu_millis, "memory_mib": args.memory, "disk_mib": args.disk, "processes": null })
    });
    Ok(json!({
        "ask": "request",
        "name": args.name,
        "release": args.release,
        "parameters": parameters,
        "resources": resources,
        "wish": args.wish,
        "shared": args.shared,
        "on": args.on,
    }))
}

/// `KEY=VALUE`, where a value is JSON if it is, else a text.
fn pairs_of(pairs: &[String]) -> Result<Map<String, Value>, Problem> {
    let pair = |text: &String| match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => {
            let said = serde_json::from_str(value).unwrap_or_else(|_| Value::String(value.to_owned()));
            Ok((key.to_owned(), said))
        }
        _ => Err(Problem::new(codes::USAGE, format!("`{}` says no value", plat_model::id::shorten(text)))
            .fix("write KEY=VALUE")),
    };
    pairs.iter().map(pair).collect()
}

fn print(output: Format, all: &Value, lines: Option<&Map<String, Value>>) -> ExitCode {
    match output {
        Format::Json => println!("{all}"),
        Format::Text => lines.into_iter().flatten().for_each(|(key, value)| println!("{key}={}", text(value))),
    }
    ExitCode::SUCCESS
}

/// The value alone, as a script takes it.
fn print_one(of: &Value, key: &str) -> ExitCode {
    match of.get(key).filter(|value| !value.is_null()) {
        Some(value) => {
            println!("{}", text(value));
            ExitCode::SUCCESS
        }
        None => {
            eprintln!("there is no `{}` yet", plat_model::id::shorten(key));
            ExitCode::from(NOT_YET)
        }
    }
}

fn text(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}
