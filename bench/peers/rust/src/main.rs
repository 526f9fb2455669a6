//! iceoryx2 as a peer of the performance lab: peer-iceoryx2 iceoryx2 ROLE --options.

mod checker;
mod iox;
mod machine;
mod options;
mod result;
mod roles;
mod run_file;

use options::Options;
use run_file::RunFile;
use std::process::ExitCode;
use std::time::Duration;

const VERSION: &str = "0.10.0";

fn serve(o: &Options) -> Result<(), String> {
    println!("ready");
    while !machine::terminated() {
        std::thread::sleep(Duration::from_millis(20));
    }
    iox::clean(&o.dir)
}

fn play(o: &Options) -> Result<(), String> {
    let run = RunFile::open(&o.run)?;
    if let Some(cpu) = o.cpu {
        machine::pin(cpu)?;
    }
    let note = format!(
        "loan and send in place, no batches; safe overflow off, queue of {} records; memory only; {}",
        o.buffer()?,
        if o.block { "a notifier's event per record wakes the reader" } else { "readers poll" }
    );
    let checker = match o.role.as_str() {
        "produce" => {
            let made = roles::produce(o, run)?;
            let sent = format!("\"sent\":{}", made.sent);
            return result::write(o, VERSION, &note, &sent, &made.lateness);
        }
        "pong" => return roles::pong(o, run),
        "consume" => roles::consume(o, run)?,
        "ping" => roles::ping(o, run)?,
        other => return Err(format!("no such role: {other}")),
    };
    checker.report(o, VERSION, &note, &run)
}

fn main() -> ExitCode {
    machine::catch_signals();
    let args: Vec<String> = std::env::args().skip(1).collect();
    let result = Options::parse(&args).and_then(|o| match o.role.as_str() {
        "version" => {
            println!("iceoryx2 {VERSION}");
            Ok(())
        }
        "serve" => serve(&o),
        _ => play(&o),
    });
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(what) => {
            eprintln!("peer: {}", what.lines().next().unwrap_or("failed"));
            ExitCode::FAILURE
        }
    }
}
