//! The mapped file that all processes of a run share; one word on each 64-byte line.

use crate::machine::{now_ns, terminated};
use std::fs::OpenOptions;
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

pub const MAX_PRODUCERS: usize = 16;

const MAGIC: u64 = 0x3153_5245_4550_4752;
const BYTES: usize = 4096;
const VERSION: usize = 8;
const READY: usize = 64;
const START: usize = 128;
const MEASURE: usize = 192;
const END: usize = 256;
const STOP: usize = 320;
const PRODUCERS: usize = 384;
const CONSUMERS: usize = 448;
const SENT: usize = 512;
const DONE: u64 = 1 << 63;
const POLL: Duration = Duration::from_micros(200);
const SPIN_BEFORE_START_NS: u64 = 2_000_000;

/// Lives as long as the process, so that it can be looked at from anywhere.
#[derive(Clone, Copy)]
pub struct RunFile {
    words: &'static [AtomicU64],
}

impl RunFile {
    pub fn open(path: &str) -> Result<RunFile, String> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .open(path)
            .map_err(|e| format!("{path}: {e}"))?;
        // SAFETY: a new mapping of the whole file, never unmapped; only atomics touch it.
        let words = unsafe {
            let at = libc::mmap(
                std::ptr::null_mut(),
                BYTES,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED,
                file.as_raw_fd(),
                0,
            );
            if at == libc::MAP_FAILED {
                return Err(format!("{path}: cannot be mapped"));
            }
            std::slice::from_raw_parts(at as *const AtomicU64, BYTES / 8)
        };
        let run = RunFile { words };
        if run.get(0) != MAGIC || run.get(VERSION) != 1 {
            return Err(format!("{path} is not a run file of version 1"));
        }
        Ok(run)
    }

    fn get(&self, offset: usize) -> u64 {
        self.words[offset / 8].load(Ordering::Acquire)
    }

    pub fn ready(&self) {
        self.words[READY / 8].fetch_add(1, Ordering::AcqRel);
    }

    pub fn stopped(&self) -> bool {
        self.get(STOP) != 0 || terminated()
    }

    pub fn measure_ns(&self) -> u64 {
        self.get(MEASURE)
    }

    pub fn end_ns(&self) -> u64 {
        self.get(END)
    }

    pub fn producers(&self) -> usize {
        self.get(PRODUCERS) as usize
    }

    pub fn consumers(&self) -> usize {
        self.get(CONSUMERS) as usize
    }

    /// Sleeps until the runner has said when sending begins; false: the run was stopped first.
    pub fn await_schedule(&self) -> bool {
        while self.get(START) == 0 {
            if self.stopped() {
                return false;
            }
            std::thread::sleep(POLL);
        }
        true
    }

    /// Waits for the time at which sending begins; None: the run was stopped first.
    pub fn await_start(&self) -> Option<u64> {
        if !self.await_schedule() {
            return None;
        }
        let start = self.get(START);
        loop {
            let now = now_ns();
            if now >= start {
                return Some(start);
            }
            if self.stopped() {
                return None;
            }
            if start - now > SPIN_BEFORE_START_NS {
                std::thread::sleep(Duration::from_nanos(start - now - SPIN_BEFORE_START_NS));
            } else {
                std::hint::spin_loop();
            }
        }
    }

    pub fn done(&self, producer: usize, sent: u64) {
        self.words[(SENT + 64 * producer) / 8].store(sent | DONE, Ordering::Release);
    }

    /// What a producer has sent in all; None: it is not done.
    pub fn sent(&self, producer: usize) -> Option<u64> {
        let word = self.get(SENT + 64 * producer);
        (word & DONE != 0).then_some(word & !DONE)
    }

    /// The sum over all producers; None: one of them is not done.
    pub fn sent_by_all(&self) -> Option<u64> {
        (0..self.producers()).map(|k| self.sent(k)).sum()
    }
}
