//! The result of a role as one JSON object.

use crate::machine::usage;
use crate::options::Options;
use hdrhistogram::Histogram;

const HIGHEST_NS: u64 = 3_600_000_000_000;

pub fn new_histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, HIGHEST_NS, 3).expect("bounds are valid")
}

/// `counts`: the members that only this role has. Writes beside the name and renames, so that a reader never
/// sees half a file.
pub fn write(
    o: &Options,
    version: &str,
    note: &str,
    counts: &str,
    histogram: &Histogram<u64>,
) -> Result<(), String> {
    let Some(path) = &o.hist else { return Ok(()) };
    let part = format!("{path}.part");
    std::fs::write(&part, json(o, version, note, counts, histogram))
        .and_then(|()| std::fs::rename(&part, path))
        .map_err(|e| format!("{path}: {e}"))
}

fn json(o: &Options, version: &str, note: &str, counts: &str, histogram: &Histogram<u64>) -> String {
    let pairs: Vec<String> = histogram
        .iter_recorded()
        .map(|v| {
            let value = histogram.highest_equivalent(v.value_iterated_to());
            format!("[{value},{}]", v.count_at_value())
        })
        .collect();
    let (cpu_ns, max_rss_kib) = usage();
    format!(
        concat!(
            "{{\"peer\":\"iceoryx2\",\"version\":\"{}\",\"role\":\"{}\",\"index\":{},",
            "\"size\":{},\"rate\":{},\"mode\":\"{}\",\"wait\":\"{}\",{},\"histogram\":[{}],",
            "\"cpu_ns\":{},\"max_rss_kib\":{},\"note\":\"{}\"}}\n"
        ),
        version,
        o.role,
        o.index,
        o.size,
        o.rate,
        o.mode,
        if o.block { "block" } else { "spin" },
        counts,
        pairs.join(","),
        cpu_ns,
        max_rss_kib,
        note
    )
}
