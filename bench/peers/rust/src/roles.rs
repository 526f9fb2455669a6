//! The loops of the protocol's roles.

use crate::checker::{sampled, word1, Checker};
use crate::iox::{Domain, Receiver, Sender, Stream};
use crate::machine::now_ns;
use crate::options::Options;
use crate::result;
use crate::run_file::RunFile;
use hdrhistogram::Histogram;
use iceoryx2::prelude::PortFactory;
use std::time::Duration;

const LOST_AFTER_NS: u64 = 10_000_000_000;
const SECOND_NS: u64 = 1_000_000_000;
const SLEEP_SLACK_NS: u64 = 80_000;
const SPINS_BETWEEN_LOOKS: u32 = 63;

/// What a producer has to report; `lateness`: return of a send less its intended time, open loop only.
pub struct Production {
    pub sent: u64,
    pub lateness: Histogram<u64>,
}

pub fn produce(o: &Options, run: RunFile) -> Result<Production, String> {
    let domain = Domain::new(o, run)?;
    let sender = domain.sender(Stream::Data)?;
    domain.await_connected(Stream::Data, &sender.service)?;
    run.ready();
    let mut sent = 0;
    let mut lateness = result::new_histogram();
    if let Some(start) = run.await_start() {
        let result = if o.rate == 0 {
            saturate(o, &run, &sender, &mut sent)
        } else {
            open_loop(o, &run, &sender, start, &mut sent, &mut lateness)
        };
        if !run.stopped() {
            result?;
        }
    }
    run.done(o.index, sent);
    linger(&run, &sender);
    Ok(Production { sent, lateness })
}

/// A publisher's memory goes with it, so it stays until its readers have left.
fn linger(run: &RunFile, sender: &Sender) {
    let give_up = now_ns() + LOST_AFTER_NS;
    while !run.stopped()
        && now_ns() < give_up
        && sender.service.dynamic_config().number_of_subscribers() > 0
    {
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn saturate(o: &Options, run: &RunFile, sender: &Sender, sent: &mut u64) -> Result<(), String> {
    let mut time = 0;
    while !run.stopped() {
        if sampled(*sent) {
            time = now_ns();
            if time > run.end_ns() {
                break;
            }
        }
        sender.send(time, word1(o.index, *sent))?;
        *sent += 1;
    }
    Ok(())
}

fn open_loop(
    o: &Options,
    run: &RunFile,
    sender: &Sender,
    start: u64,
    sent: &mut u64,
    lateness: &mut Histogram<u64>,
) -> Result<(), String> {
    let measure = run.measure_ns();
    let (step, step_rest) = (SECOND_NS / o.rate, SECOND_NS % o.rate);
    let (mut intended, mut rest) = (start, 0);
    while intended <= run.end_ns() {
        if !await_intended(o, run, intended) {
            break;
        }
        sender.send(intended, word1(o.index, *sent))?;
        if o.hist.is_some() && intended >= measure {
            lateness.saturating_record(now_ns().saturating_sub(intended));
        }
        *sent += 1;
        intended += step;
        rest += step_rest;
        if rest >= o.rate {
            rest -= o.rate;
            intended += 1;
        }
    }
    Ok(())
}

/// Spins, or with blocking waits sleeps while the time is far; false: stopped.
fn await_intended(o: &Options, run: &RunFile, intended: u64) -> bool {
    loop {
        let now = now_ns();
        if now >= intended {
            return !run.stopped();
        }
        if run.stopped() {
            return false;
        }
        let left = intended - now;
        if o.block && left > SLEEP_SLACK_NS {
            std::thread::sleep(Duration::from_nanos(left - SLEEP_SLACK_NS));
        } else {
            std::hint::spin_loop();
        }
    }
}

pub fn consume(o: &Options, run: RunFile) -> Result<Checker, String> {
    let domain = Domain::new(o, run)?;
    let receiver = domain.receiver(Stream::Data)?;
    domain.await_connected(Stream::Data, &receiver.service)?;
    run.ready();
    let started = run.await_schedule();
    let mut checker = Checker::new(o.size, run.measure_ns(), o.rate == 0);
    if started {
        receive_all(&run, &receiver, &mut checker)?;
    }
    Ok(checker)
}

fn receive_all(run: &RunFile, receiver: &Receiver, checker: &mut Checker) -> Result<(), String> {
    let look = if receiver.blocks() { 0 } else { SPINS_BETWEEN_LOOKS };
    let mut spins = 0u32;
    let mut quiet_since = None;
    while !run.stopped() {
        if receiver.poll(|words| checker.on_record(words))? {
            quiet_since = None;
            continue;
        }
        spins = spins.wrapping_add(1);
        if spins & look == 0 {
            if let Some(sent) = run.sent_by_all() {
                let since = *quiet_since.get_or_insert_with(now_ns);
                if checker.distinct() >= sent || now_ns() - since > LOST_AFTER_NS {
                    return Ok(());
                }
            }
        }
        receiver.idle()?;
    }
    Ok(())
}

pub fn ping(o: &Options, run: RunFile) -> Result<Checker, String> {
    let domain = Domain::new(o, run)?;
    let sender = domain.sender(Stream::Ping)?;
    let receiver = domain.receiver(Stream::Pong)?;
    domain.await_connected(Stream::Ping, &sender.service)?;
    domain.await_connected(Stream::Pong, &receiver.service)?;
    run.ready();
    let start = run.await_start();
    let mut checker = Checker::new(o.size, run.measure_ns(), false);
    let mut sent = 0;
    while start.is_some() && !run.stopped() && now_ns() <= run.end_ns() {
        sender.send(now_ns(), word1(o.index, sent))?;
        sent += 1;
        if !await_answer(&run, &receiver, &mut checker)? {
            break;
        }
    }
    run.done(o.index, sent);
    Ok(checker)
}

fn await_answer(run: &RunFile, receiver: &Receiver, checker: &mut Checker) -> Result<bool, String> {
    let since = now_ns();
    while !receiver.poll(|words| checker.on_record(words))? {
        if run.stopped() || now_ns() - since > LOST_AFTER_NS {
            return Ok(false);
        }
        receiver.idle()?;
    }
    Ok(true)
}

pub fn pong(o: &Options, run: RunFile) -> Result<(), String> {
    let domain = Domain::new(o, run)?;
    let receiver = domain.receiver(Stream::Ping)?;
    let sender = domain.sender(Stream::Pong)?;
    domain.await_connected(Stream::Ping, &receiver.service)?;
    domain.await_connected(Stream::Pong, &sender.service)?;
    run.ready();
    if !run.await_schedule() {
        return Ok(());
    }
    let give_up = run.end_ns() + LOST_AFTER_NS;
    while !run.stopped() && run.sent(o.index).is_none() && now_ns() < give_up {
        let mut result = Ok(());
        if !receiver.poll(|words| result = sender.send_back(words))? {
            receiver.idle()?;
        }
        result?;
    }
    Ok(())
}
