//! Sizes, rates, percentages and spans of time: from text and to text.

use std::time::Duration;

#[cfg(test)]
#[path = "units/tests.rs"]
mod tests;

const UNITS: [(&str, u64); 5] =
    [("K", 1 << 10), ("M", 1 << 20), ("G", 1 << 30), ("T", 1 << 40), ("P", 1 << 50)];
const DECIMAL: [(&str, u64); 5] = [
    ("KB", 1_000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
    ("TB", 1_000_000_000_000),
    ("PB", 1_000_000_000_000_000),
];

/// Bytes: a number, or one with a unit. `K` and `KiB` are 1024, `KB` is 1000.
pub(crate) fn parse_size(text: &str) -> Result<u64, String> {
    parse_scaled(text, 1)
}

/// Bytes a second: plain numbers are KiB, as restic has them; a unit may end in `/s`.
pub(crate) fn parse_rate(text: &str) -> Result<u64, String> {
    let text = text.trim();
    let rate = parse_scaled(text.strip_suffix("/s").unwrap_or(text), 1 << 10)?;
    if rate == 0 {
        Err("a rate of zero never ends: leave the option out for no limit".into())
    } else {
        Ok(rate)
    }
}

fn parse_scaled(text: &str, plain: u64) -> Result<u64, String> {
    let text = text.trim();
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let wrong = || format!("{text:?} is not a size: write a number and a unit, such as 96MiB");
    let number: f64 = number.parse().map_err(|_| wrong())?;
    let scale = unit_scale(unit.trim(), plain).ok_or_else(wrong)?;
    let bytes = number * scale as f64;
    // Beyond 2^53 a float is not exact, and no disk is that large.
    if bytes > 9e15 { Err(format!("{text:?} is too large")) } else { Ok(bytes as u64) }
}

fn unit_scale(unit: &str, plain: u64) -> Option<u64> {
    match unit.to_ascii_uppercase().as_str() {
        "" => Some(plain),
        "B" => Some(1),
        decimal if DECIMAL.iter().any(|(name, _)| *name == decimal) => {
            DECIMAL.iter().find(|(name, _)| *name == decimal).map(|(_, scale)| *scale)
        }
        binary => {
            let letter = binary.strip_suffix("IB").unwrap_or(binary);
            UNITS.iter().find(|(name, _)| *name == letter).map(|(_, scale)| *scale)
        }
    }
}

/// A percentage above 0 and up to 100, with or without its sign.
pub(crate) fn parse_percent(text: &str) -> Result<f64, String> {
    let number = text.trim().strip_suffix('%').unwrap_or(text.trim());
    match number.trim().parse::<f64>() {
        Ok(percent) if percent > 0.0 && percent <= 100.0 => Ok(percent),
        _ => Err(format!("{text:?} is not a percentage above 0 and up to 100, such as 5%")),
    }
}

/// How to compress.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum CompressionArg {
    /// Adapts within the engine's own bounds.
    #[default]
    Auto,
    /// Adapts within these.
    Between(i32, i32),
    /// One zstd level.
    Level(i32),
    /// None.
    Off,
}

/// Levels of zstd that this program uses: above 19 it needs more memory than the budget has.
const LEVELS: std::ops::RangeInclusive<i32> = 1..=19;

/// Reads `auto`, `off`, `LEVEL` or `MIN..MAX`.
pub(crate) fn parse_compression(text: &str) -> Result<CompressionArg, String> {
    let wrong = || format!("{text:?} is not auto, off, a level from 1 to 19, or bounds such as 1..6");
    let level = |part: &str| part.parse().ok().filter(|level| LEVELS.contains(level)).ok_or_else(wrong);
    match text {
        "auto" => Ok(CompressionArg::Auto),
        "off" => Ok(CompressionArg::Off),
        _ => match text.split_once("..") {
            Some((low, high)) => {
                let (low, high) = (level(low)?, level(high)?);
                if low <= high { Ok(CompressionArg::Between(low, high)) } else { Err(wrong()) }
            }
            None => Ok(CompressionArg::Level(level(text)?)),
        },
    }
}

/// A span of the calendar in restic's form: years, months, days, hours (`1y6m3d12h`).
pub(crate) fn parse_span(text: &str) -> Result<jiff::Span, String> {
    let wrong = || format!("{text:?} is not a span of time such as 1y6m3d12h (years, months, days, hours)");
    let mut span = jiff::Span::new();
    let mut number = String::new();
    let mut units = String::new();
    for character in text.chars() {
        if character.is_ascii_digit() {
            number.push(character);
            continue;
        }
        // The second `3d` of a span would take the place of the first, and keep less than was said.
        if number.is_empty() || units.contains(character) {
            return Err(wrong());
        }
        let too_long = || format!("{text:?} is longer than the calendar");
        let value: i64 = number.parse().map_err(|_| too_long())?;
        number.clear();
        units.push(character);
        span = match character {
            'y' => span.try_years(value),
            'm' => span.try_months(value),
            'd' => span.try_days(value),
            'h' => span.try_hours(value),
            _ => return Err(wrong()),
        }
        .map_err(|_| too_long())?;
    }
    if !units.is_empty() && number.is_empty() { Ok(span) } else { Err(wrong()) }
}

/// A length of time: numbers with `d`, `h`, `m` (minutes) or `s`, the largest first (`7d`, `1d12h`, `10m`). Above zero.
pub(crate) fn parse_time(text: &str) -> Result<Duration, String> {
    let time = parse_wait(text)?;
    if time.is_zero() { Err(format!("{text:?} must be more than zero")) } else { Ok(time) }
}

/// The same, or zero, for which `0` is enough.
pub(crate) fn parse_wait(text: &str) -> Result<Duration, String> {
    let wrong = || {
        format!(
            "{text:?} is not a time such as 90s, 10m, 2h or 7d (seconds, minutes, hours, days), 0 or more"
        )
    };
    let too_long = || format!("{text:?} is too long");
    let mut rest = text.trim();
    if rest == "0" {
        return Ok(Duration::ZERO);
    }
    let (mut seconds, mut larger) = (0_u64, u64::MAX);
    while !rest.is_empty() || larger == u64::MAX {
        let digits = rest.find(|c: char| !c.is_ascii_digit()).ok_or_else(wrong)?;
        let scale = match &rest.as_bytes()[digits] {
            b'd' => 24 * 3600,
            b'h' => 3600,
            b'm' => 60,
            b's' => 1,
            _ => return Err(wrong()),
        };
        if digits == 0 || scale >= larger {
            return Err(wrong());
        }
        let number: u64 = rest[..digits].parse().map_err(|_| too_long())?;
        let part = number.checked_mul(scale).ok_or_else(too_long)?;
        seconds = seconds.checked_add(part).ok_or_else(too_long)?;
        (rest, larger) = (&rest[digits + 1..], scale);
    }
    Ok(Duration::from_secs(seconds))
}

/// A whole number.
pub(crate) fn parse_count<N: std::str::FromStr>(text: &str) -> Result<N, String> {
    let text = text.trim();
    text.parse().map_err(|_| match text.strip_prefix('-') {
        Some(digits) if !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit()) => {
            format!("{text} is less than nothing: it must be 0 or more")
        }
        _ if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) => {
            format!("{text} is too large")
        }
        _ => format!("{text:?} is not a whole number, 0 or more"),
    })
}

/// Tags separated by commas. An empty one is what an unset variable leaves behind, and no snapshot has it.
pub(crate) fn parse_tags(text: &str) -> Result<String, String> {
    if text.split(',').any(str::is_empty) {
        return Err("a tag is empty: name tags such as nightly, or nightly,db for snapshots with both".into());
    }
    Ok(text.to_owned())
}

/// Bytes for people, three digits and a binary unit.
pub(crate) fn size(bytes: u64) -> String {
    let mut shown = (bytes as f64, "B");
    for (unit, scale) in
        [("KiB", 1u64 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30), ("TiB", 1 << 40), ("PiB", 1 << 50)]
    {
        if bytes >= scale {
            shown = (bytes as f64 / scale as f64, unit);
        }
    }
    match shown {
        (_, "B") => format!("{bytes} B"),
        (number, unit) if number < 10.0 => format!("{number:.2} {unit}"),
        (number, unit) if number < 100.0 => format!("{number:.1} {unit}"),
        (number, unit) => format!("{number:.0} {unit}"),
    }
}

/// Bytes a second for people.
pub(crate) fn rate(bytes: u64, time: Duration) -> String {
    let seconds = time.as_secs_f64().max(0.001);
    format!("{}/s", size((bytes as f64 / seconds) as u64))
}

/// A span for people: `0.4 s`, `12 s`, `3:07`, `2:03:07`.
pub(crate) fn duration(time: Duration) -> String {
    let seconds = time.as_secs();
    match seconds {
        0..10 => format!("{:.1} s", time.as_secs_f64()),
        10..60 => format!("{seconds} s"),
        60..3600 => format!("{}:{:02}", seconds / 60, seconds % 60),
        _ => format!("{}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60),
    }
}

/// `1 file`, `2 files`.
pub(crate) fn count(number: u64, one: &str, many: &str) -> String {
    format!("{number} {}", if number == 1 { one } else { many })
}

/// A moment in the local time zone.
pub(crate) fn moment(time: jiff::Timestamp) -> String {
    time.to_zoned(jiff::tz::TimeZone::system()).strftime("%Y-%m-%d %H:%M:%S").to_string()
}
