//! The streams of a run as iceoryx2 services: loans, sends and receives without a copy.

use crate::checker::fill;
use crate::options::Options;
use crate::run_file::RunFile;
use iceoryx2::config::Config;
use iceoryx2::port::listener::Listener;
use iceoryx2::port::notifier::Notifier;
use iceoryx2::port::publisher::Publisher;
use iceoryx2::port::subscriber::Subscriber;
use iceoryx2::port::BackpressureAction;
use iceoryx2::prelude::*;
use iceoryx2::service::port_factory::publish_subscribe::PortFactory as PubSub;
use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};
use std::path::PathBuf;
use std::time::{Duration, Instant};

const CONNECT: Duration = Duration::from_secs(60);
const BLOCK: Duration = Duration::from_millis(100);
const NOTIFY_ROOM: usize = 32;

type Service = ipc::Service;

/// What one service's two sides are called by.
#[derive(Clone, Copy, PartialEq)]
pub enum Stream {
    Data,
    Ping,
    Pong,
}

impl Stream {
    fn name(self) -> &'static str {
        match self {
            Stream::Data => "data",
            Stream::Ping => "ping",
            Stream::Pong => "pong",
        }
    }
}

fn said<E: std::fmt::Debug>(what: &str) -> impl Fn(E) -> String + '_ {
    move |e| format!("iceoryx2: {what}: {e:?}")
}

/// What a run's files are called by. It is short because the path of a listener's socket
/// must fit the 107 bytes that Unix sockets allow.
fn prefix(dir: &str) -> String {
    let mut hasher = DefaultHasher::new();
    std::fs::canonicalize(dir)
        .unwrap_or_else(|_| PathBuf::from(dir))
        .hash(&mut hasher);
    format!("rt-iox2-{:08x}-", hasher.finish() as u32)
}

fn root(dir: &str) -> String {
    format!("/tmp/{}files/", prefix(dir))
}

/// One node of the run; runs in different directories do not see each other.
pub struct Domain {
    node: Node<Service>,
    run: RunFile,
    size: usize,
    block: bool,
    buffer: usize,
}

fn config(dir: &str) -> Result<Config, String> {
    let mut config = Config::default();
    let root = root(dir);
    std::fs::create_dir_all(&root).map_err(|e| format!("{root}: {e}"))?;
    let root = Path::new(root.as_bytes()).map_err(said("no root path"))?;
    config.global.set_root_path(&root);
    config.global.prefix =
        FileName::new(prefix(dir).as_bytes()).map_err(said("cannot name the run"))?;
    Ok(config)
}

impl Domain {
    pub fn new(o: &Options, run: RunFile) -> Result<Domain, String> {
        set_log_level_from_env_or(LogLevel::Error);
        let node = NodeBuilder::new()
            .config(&config(&o.dir)?)
            .signal_handling_mode(SignalHandlingMode::Disabled)
            .create::<Service>()
            .map_err(said("no node"))?;
        Ok(Domain {
            node,
            run,
            size: o.size,
            block: o.block,
            buffer: o.buffer()?,
        })
    }

    fn ends(&self, stream: Stream) -> (usize, usize) {
        match stream {
            Stream::Data => (self.run.producers().max(1), self.run.consumers().max(1)),
            _ => (1, 1),
        }
    }

    fn service(&self, stream: Stream) -> Result<PubSub<Service, [u64], ()>, String> {
        let (publishers, subscribers) = self.ends(stream);
        let name = ServiceName::new(stream.name()).map_err(said("no service name"))?;
        self.node
            .service_builder(&name)
            .publish_subscribe::<[u64]>()
            .payload_alignment(Alignment::new(64).expect("a power of two"))
            .enable_safe_overflow(false)
            .history_size(0)
            .subscriber_max_buffer_size(self.buffer)
            .subscriber_max_borrowed_samples(2)
            .max_publishers(publishers)
            .max_subscribers(subscribers)
            .max_nodes(publishers + subscribers + 2)
            .open_or_create()
            .map_err(said("no publish-subscribe service"))
    }

    fn event(
        &self,
        stream: Stream,
    ) -> Result<iceoryx2::service::port_factory::event::PortFactory<Service>, String> {
        let (publishers, subscribers) = self.ends(stream);
        let name = ServiceName::new(&format!("{}-event", stream.name())).map_err(said("no name"))?;
        self.node
            .service_builder(&name)
            .event()
            .max_notifiers(publishers)
            .max_listeners(subscribers)
            .max_nodes(publishers + subscribers + 2)
            .event_id_max_value(NOTIFY_ROOM)
            .open_or_create()
            .map_err(said("no event service"))
    }

    pub fn sender(&self, stream: Stream) -> Result<Sender, String> {
        let service = self.service(stream)?;
        let run = self.run;
        let publisher = service
            .publisher_builder()
            .initial_max_slice_len(self.size / 8)
            .max_loaned_samples(1)
            .backpressure_strategy(BackpressureStrategy::RetryUntilDelivered)
            // The same strategy, but a run that was stopped does not wait for a reader that left.
            .set_backpressure_handler(move |_| {
                if run.stopped() {
                    BackpressureAction::DiscardDataAndFail
                } else {
                    BackpressureAction::Retry
                }
            })
            .create()
            .map_err(said("no publisher"))?;
        let notifier = match self.block {
            true => Some(
                self.event(stream)?
                    .notifier_builder()
                    .create()
                    .map_err(said("no notifier"))?,
            ),
            false => None,
        };
        Ok(Sender {
            publisher,
            notifier,
            words: self.size / 8,
            service,
        })
    }

    pub fn receiver(&self, stream: Stream) -> Result<Receiver, String> {
        let service = self.service(stream)?;
        let listener = match self.block {
            true => Some(
                self.event(stream)?
                    .listener_builder()
                    .create()
                    .map_err(said("no listener"))?,
            ),
            false => None,
        };
        let subscriber = service
            .subscriber_builder()
            .buffer_size(self.buffer)
            .create()
            .map_err(said("no subscriber"))?;
        Ok(Receiver {
            subscriber,
            listener,
            service,
        })
    }

    /// Waits until a stream has all its publishers and subscribers, or the run is stopped.
    pub fn await_connected(
        &self,
        stream: Stream,
        service: &PubSub<Service, [u64], ()>,
    ) -> Result<(), String> {
        let (publishers, subscribers) = self.ends(stream);
        let since = Instant::now();
        loop {
            let now = service.dynamic_config();
            if now.number_of_publishers() >= publishers && now.number_of_subscribers() >= subscribers {
                return Ok(());
            }
            if self.run.stopped() {
                return Ok(());
            }
            if since.elapsed() > CONNECT {
                return Err("the other end did not connect in 60 s".into());
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

pub struct Sender {
    publisher: Publisher<Service, [u64], ()>,
    notifier: Option<Notifier<Service>>,
    words: usize,
    pub service: PubSub<Service, [u64], ()>,
}

impl Sender {
    /// Sends one record, waiting while a reader's queue is full; an error: also when stopped.
    pub fn send(&self, time: u64, word1: u64) -> Result<(), String> {
        let mut sample = self
            .publisher
            .loan_slice_uninit(self.words)
            .map_err(said("no loan"))?;
        fill(sample.payload_mut(), time, word1);
        // SAFETY: fill has written every word.
        let sample = unsafe { sample.assume_init() };
        sample.send().map_err(said("not sent"))?;
        self.wake();
        Ok(())
    }

    pub fn send_back(&self, words: &[u64]) -> Result<(), String> {
        let sample = self
            .publisher
            .loan_slice_uninit(words.len())
            .map_err(said("no loan"))?;
        sample
            .write_from_slice(words)
            .send()
            .map_err(said("not sent"))?;
        self.wake();
        Ok(())
    }

    /// A listener whose queue of events is full is awake anyhow.
    fn wake(&self) {
        if let Some(notifier) = &self.notifier {
            let _ = notifier.notify();
        }
    }
}

pub struct Receiver {
    subscriber: Subscriber<Service, [u64], ()>,
    listener: Option<Listener<Service>>,
    pub service: PubSub<Service, [u64], ()>,
}

impl Receiver {
    /// Hands over one record; false: there was none.
    pub fn poll<F: FnOnce(&[u64])>(&self, handler: F) -> Result<bool, String> {
        match self.subscriber.receive().map_err(said("not received"))? {
            Some(sample) => {
                handler(sample.payload());
                Ok(true)
            }
            None => Ok(false),
        }
    }

    /// Between two polls that found nothing.
    pub fn idle(&self) -> Result<(), String> {
        match &self.listener {
            Some(listener) => listener
                .timed_wait(|_| (), BLOCK)
                .map(|_| ())
                .map_err(said("cannot wait")),
            None => {
                std::hint::spin_loop();
                Ok(())
            }
        }
    }

    pub fn blocks(&self) -> bool {
        self.listener.is_some()
    }
}

/// Removes what processes of a run that did not end in order have left behind.
pub fn clean(dir: &str) -> Result<(), String> {
    let node = NodeBuilder::new()
        .config(&config(dir)?)
        .signal_handling_mode(SignalHandlingMode::Disabled)
        .create::<Service>()
        .map_err(said("no node"))?;
    node.blocking_cleanup_dead_nodes(Duration::from_secs(1));
    drop(node);
    let _ = std::fs::remove_dir_all(root(dir));
    let prefix = prefix(dir);
    let entries = std::fs::read_dir("/dev/shm").map_err(|e| format!("/dev/shm: {e}"))?;
    for entry in entries.flatten() {
        if entry.file_name().to_string_lossy().starts_with(&prefix) {
            let _ = std::fs::remove_file(entry.path());
        }
    }
    Ok(())
}
