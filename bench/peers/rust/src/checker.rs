//! What a record is made of, and the check that it came whole, in order and once.

use crate::machine::now_ns;
use crate::options::Options;
use crate::result;
use crate::run_file::{RunFile, MAX_PRODUCERS};
use hdrhistogram::Histogram;
use std::collections::HashSet;
use std::mem::MaybeUninit;

const MULTIPLIER: u64 = 0x9E37_79B9_7F4A_7C15;
const SEQUENCE_BITS: u32 = 56;
const WORDS_OF_A_LINE: usize = 8;
const SAMPLE_EVERY: u64 = 64;
const MAX_MISSING: usize = 1 << 20;

pub fn word1(producer: usize, sequence: u64) -> u64 {
    (producer as u64) << SEQUENCE_BITS | sequence
}

/// At rate 0, whether the record carries a fresh time: one in 64 does, for a reading costs 20 ns.
pub fn sampled(sequence: u64) -> bool {
    sequence % SAMPLE_EVERY == 0
}

pub fn fill(words: &mut [MaybeUninit<u64>], time: u64, word1: u64) {
    let base = word1.wrapping_mul(MULTIPLIER);
    for (i, word) in words.iter_mut().enumerate().skip(2) {
        word.write(base.wrapping_add(i as u64));
    }
    words[1].write(word1);
    words[0].write(time);
}

/// Looks at one word of every line (of the first, at the first that follows from word 1) and at the last.
fn intact(words: &[u64]) -> bool {
    let base = words[1].wrapping_mul(MULTIPLIER);
    let last = words.len() - 1;
    let mut wrong = (words[2] ^ base.wrapping_add(2)) | (words[last] ^ base.wrapping_add(last as u64));
    for i in (WORDS_OF_A_LINE..last).step_by(WORDS_OF_A_LINE) {
        wrong |= words[i] ^ base.wrapping_add(i as u64);
    }
    wrong == 0
}

pub struct Checker {
    histogram: Histogram<u64>,
    expected: [u64; MAX_PRODUCERS],
    missing: HashSet<u64>,
    words: usize,
    measure_ns: u64,
    saturated: bool,
    pub received: u64,
    warmup: u64,
    measured: u64,
    skipped: u64,
    duplicated: u64,
    reordered: u64,
    corrupt: u64,
    first_ns: u64,
    last_ns: u64,
}

impl Checker {
    /// `saturated`: a stream at rate 0, where only sampled records carry a fresh time and have a latency.
    pub fn new(size: usize, measure_ns: u64, saturated: bool) -> Checker {
        Checker {
            histogram: result::new_histogram(),
            expected: [0; MAX_PRODUCERS],
            missing: HashSet::new(),
            words: size / 8,
            measure_ns,
            saturated,
            received: 0,
            warmup: 0,
            measured: 0,
            skipped: 0,
            duplicated: 0,
            reordered: 0,
            corrupt: 0,
            first_ns: 0,
            last_ns: 0,
        }
    }

    pub fn on_record(&mut self, words: &[u64]) {
        self.received += 1;
        if words.len() != self.words || !intact(words) {
            self.corrupt += 1;
            return;
        }
        let producer = (words[1] >> SEQUENCE_BITS) as usize;
        if producer >= MAX_PRODUCERS {
            self.corrupt += 1;
            return;
        }
        let sequence = words[1] & ((1 << SEQUENCE_BITS) - 1);
        if sequence == self.expected[producer] {
            self.expected[producer] = sequence + 1;
        } else {
            self.out_of_order(producer, sequence);
        }
        if words[0] < self.measure_ns {
            self.warmup += 1;
            return;
        }
        self.measured += 1;
        if self.saturated && self.measured > 1 && !sampled(sequence) {
            return;
        }
        let now = now_ns();
        if self.measured == 1 {
            self.first_ns = now;
        }
        self.last_ns = now;
        self.histogram.saturating_record(now.saturating_sub(words[0]));
    }

    #[cold]
    fn out_of_order(&mut self, producer: usize, sequence: u64) {
        let expected = self.expected[producer];
        if sequence > expected {
            self.skipped += sequence - expected;
            for s in expected..sequence {
                if self.missing.len() >= MAX_MISSING {
                    break;
                }
                self.missing.insert(word1(producer, s));
            }
            self.expected[producer] = sequence + 1;
        } else if self.missing.remove(&word1(producer, sequence)) {
            self.skipped -= 1;
            self.reordered += 1;
        } else {
            self.duplicated += 1;
        }
    }

    /// Records that came whole, each counted once.
    pub fn distinct(&self) -> u64 {
        self.received - self.duplicated - self.corrupt
    }

    /// Records that a later one overtook and that never came, and those missing at the end.
    fn lost(&self, run: &RunFile) -> u64 {
        if run.stopped() {
            return self.skipped;
        }
        let at_the_end: u64 = (0..run.producers())
            .filter_map(|k| run.sent(k).map(|sent| sent.saturating_sub(self.expected[k])))
            .sum();
        self.skipped + at_the_end
    }

    /// Writes the result; an error where records were lost or spoilt.
    pub fn report(&self, o: &Options, version: &str, note: &str, run: &RunFile) -> Result<(), String> {
        let lost = self.lost(run);
        let counts = format!(
            concat!(
                "\"received\":{},\"warmup\":{},\"lost\":{},\"duplicated\":{},\"reordered\":{},",
                "\"corrupt\":{},\"first_ns\":{},\"last_ns\":{},\"measured\":{}"
            ),
            self.received,
            self.warmup,
            lost,
            self.duplicated,
            self.reordered,
            self.corrupt,
            self.first_ns,
            self.last_ns,
            self.measured
        );
        result::write(o, version, note, &counts, &self.histogram)?;
        if lost + self.duplicated + self.reordered + self.corrupt == 0 {
            return Ok(());
        }
        Err(format!(
            "iceoryx2: {lost} lost, {} duplicated, {} reordered, {} corrupt of {}",
            self.duplicated, self.reordered, self.corrupt, self.received
        ))
    }
}
