//! What the operating system says of this machine.

use std::{
    fs,
    path::Path,
    time::{SystemTime, UNIX_EPOCH},
};

use sartor::{Cache, Machine};

/// This machine, of which `threads` work.
pub(crate) fn this(threads: usize) -> Machine {
    let processors = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let field = |name: &str| field(&processors, name);
    let unknown = || format!("unknown {} processor", std::env::consts::ARCH);
    let megahertz: Option<f64> = field("cpu MHz").and_then(|it| it.parse().ok());
    Machine {
        processor: field("model name").unwrap_or_else(unknown),
        vendor: vendor(&field("vendor_id").unwrap_or_default()),
        clock_hz: megahertz.filter(|it| *it > 0.0).map(|it| it * 1e6),
        threads,
        caches: caches(Path::new("/sys/devices/system/cpu/cpu0/cache"), threads),
        date: today(),
    }
}

/// The value of the first line that begins with a name.
fn field(text: &str, name: &str) -> Option<String> {
    let mut lines = text.lines().filter_map(|it| it.split_once(':'));
    let value = lines.find(|it| it.0.trim() == name)?.1.trim();
    (!value.is_empty()).then(|| value.to_owned())
}

/// Who makes the processor.
fn vendor(id: &str) -> String {
    match id {
        "GenuineIntel" => "Intel",
        "AuthenticAMD" => "AMD",
        "" => "unknown",
        other => other,
    }
    .to_owned()
}

/// Caches from the second level on, over as many cores as work. What Linux says under `/sys` of one core.
fn caches(folder: &Path, threads: usize) -> Vec<Cache> {
    let mut found = Vec::new();
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    for entry in entries {
        let read = |name: &str| {
            fs::read_to_string(entry.path().join(name)).map(|it| it.trim().to_owned()).ok()
        };
        let (Some(level), Some(kind), Some(size)) = (read("level"), read("type"), read("size"))
        else {
            continue;
        };
        let (Ok(level), Some(bytes)) = (level.parse::<u64>(), size_in_bytes(&size)) else {
            continue;
        };
        if level < 2 || kind == "Instruction" {
            continue;
        }
        let sharing = read("shared_cpu_list").map_or(1, |it| processors_in(&it));
        let instances = threads.div_ceil(sharing.max(1)) as u64;
        found.push((level, Cache { name: format!("l{level}"), bytes: bytes * instances }));
    }
    found.sort_by_key(|it| it.0);
    found.dedup_by_key(|it| it.0);
    found.into_iter().map(|it| it.1).collect()
}

/// `512K` or `32M`.
fn size_in_bytes(text: &str) -> Option<u64> {
    let (digits, unit) = text.split_at(text.find(|it: char| !it.is_ascii_digit())?);
    let unit = match unit {
        "K" => 1 << 10,
        "M" => 1 << 20,
        "G" => 1 << 30,
        _ => return None,
    };
    digits.parse::<u64>().ok()?.checked_mul(unit).filter(|it| *it > 0)
}

/// How many processors a list such as `0-3,8` names.
fn processors_in(list: &str) -> usize {
    let one = |part: &str| {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last) = (first.trim().parse::<usize>().ok()?, last.trim().parse().ok()?);
        usize::checked_sub(last, first).map(|it| it + 1)
    };
    list.split(',').filter_map(one).sum()
}

/// The day in UTC, as `2026-11-25`.
fn today() -> String {
    #[expect(clippy::disallowed_methods, reason = "the command line is where clocks are read")]
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    day(since.as_secs() / 86_400)
}

/// The day so many days after the first of 1970, in the Gregorian calendar.
fn day(mut days: u64) -> String {
    let leap = |year: u64| {
        year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400))
    };
    let mut year = 1970;
    while days >= 365 + u64::from(leap(year)) {
        days -= 365 + u64::from(leap(year));
        year += 1;
    }
    let february = 28 + u64::from(leap(year));
    let months = [31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    let mut month = 1;
    for length in months {
        if days < length {
            break;
        }
        days -= length;
        month += 1;
    }
    format!("{year}-{month:02}-{:02}", days + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_are_those_of_the_calendar() {
        for (days, text) in
            [(0, "1970-01-01"), (59, "1970-03-01"), (11_016, "2000-02-29"), (20_782, "2026-11-25")]
        {
            assert_eq!(day(days), text);
        }
    }

    #[test]
    fn what_linux_writes_is_read() {
        assert_eq!(field("a : b\nmodel name\t: A chip: 2\n", "model name").unwrap(), "A chip: 2");
        assert_eq!(field("model name :\n", "model name"), None);
        assert_eq!(
            [size_in_bytes("512K"), size_in_bytes("32M"), size_in_bytes("7")],
            [Some(524_288), Some(33_554_432), None]
        );
        for (list, count) in [("0", 1), ("0-3", 4), ("0-1,8-9", 4), ("x", 0)] {
            assert_eq!(processors_in(list), count, "{list}");
        }
    }

    #[test]
    fn caches_are_counted_over_the_cores_that_work() {
        let folder = tempfile::tempdir().unwrap();
        let write = |index: &str, level: &str, kind: &str, size: &str, shared: &str| {
            let path = folder.path().join(index);
            fs::create_dir(&path).unwrap();
            for (name, text) in
                [("level", level), ("type", kind), ("size", size), ("shared_cpu_list", shared)]
            {
                #[expect(clippy::disallowed_methods, reason = "a file of a test")]
                fs::write(path.join(name), format!("{text}\n")).unwrap();
            }
        };
        write("index0", "1", "Data", "32K", "0");
        write("index2", "3", "Unified", "32M", "0-7");
        write("index1", "2", "Unified", "1024K", "0");
        let found = caches(folder.path(), 4);
        let found: Vec<_> = found.iter().map(|it| (it.name.as_str(), it.bytes)).collect();
        assert_eq!(found, [("l2", 4 << 20), ("l3", 32 << 20)]);
    }
}
