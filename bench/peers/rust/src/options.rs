//! The command line: SYSTEM ROLE and the options of the peers' protocol.

use crate::run_file::MAX_PRODUCERS;

pub struct Options {
    pub role: String,
    pub run: String,
    pub dir: String,
    pub hist: Option<String>,
    pub index: usize,
    pub size: usize,
    pub rate: u64,
    pub block: bool,
    pub mode: String,
    pub cpu: Option<usize>,
}

impl Options {
    pub fn parse(args: &[String]) -> Result<Options, String> {
        if args.len() < 2 {
            return Err("wanted: iceoryx2 ROLE [--run FILE --dir DIR ...]".into());
        }
        if args[0] != "iceoryx2" {
            return Err(format!("no such system: {}; there is iceoryx2", args[0]));
        }
        let mut o = Options {
            role: args[1].clone(),
            run: String::new(),
            dir: String::new(),
            hist: None,
            index: 0,
            size: 64,
            rate: 0,
            block: false,
            mode: String::new(),
            cpu: None,
        };
        for pair in args[2..].chunks(2) {
            let [name, value] = pair else {
                return Err(format!("{} wants a value", pair[0]));
            };
            o.set(name, value)?;
        }
        o.check()?;
        Ok(o)
    }

    fn set(&mut self, name: &str, value: &str) -> Result<(), String> {
        let number = || {
            value
                .parse::<u64>()
                .map_err(|_| format!("{name} wants a number, not {value}"))
        };
        match name {
            "--run" => self.run = value.into(),
            "--dir" => self.dir = value.into(),
            "--hist" => self.hist = Some(value.into()),
            "--index" => self.index = number()? as usize,
            "--size" => self.size = number()? as usize,
            "--rate" => self.rate = number()?,
            "--batch" => drop(number()?),
            "--mode" => self.mode = value.into(),
            "--cpu" => self.cpu = Some(number()? as usize),
            "--wait" => match value {
                "spin" => self.block = false,
                "block" => self.block = true,
                _ => return Err(format!("--wait is spin or block, not {value}")),
            },
            _ => return Err(format!("no such option: {name}")),
        }
        Ok(())
    }

    fn check(&self) -> Result<(), String> {
        if self.role == "version" {
            return Ok(());
        }
        if self.dir.is_empty() {
            return Err("--dir DIR is wanted".into());
        }
        if self.run.is_empty() && self.role != "serve" {
            return Err("--run FILE is wanted".into());
        }
        if self.size < 32 || self.size % 8 != 0 {
            return Err(format!("--size is 32 or more and a multiple of 8, not {}", self.size));
        }
        if self.index >= MAX_PRODUCERS {
            return Err(format!("--index is below {MAX_PRODUCERS}, not {}", self.index));
        }
        if self.rate > 1_000_000_000 {
            return Err(format!("--rate is 0 to 1000000000 records/s, not {}", self.rate));
        }
        self.buffer().map(|_| ())
    }

    /// How many records a subscriber's queue holds: --mode bufferN.
    pub fn buffer(&self) -> Result<usize, String> {
        if self.mode.is_empty() {
            return Ok(1024);
        }
        self.mode
            .strip_prefix("buffer")
            .and_then(|n| n.parse().ok())
            .filter(|n| (1..=65536).contains(n))
            .ok_or(format!("--mode is buffer1 to buffer65536, not {}", self.mode))
    }
}
