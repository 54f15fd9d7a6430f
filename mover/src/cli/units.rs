//! Sizes, rates, percentages and spans of time: from text and to text.

use std::time::Duration;

#[cfg(test)]
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

/// A length of time in days and hours (`7d`, `36h`).
pub(crate) fn parse_days(text: &str) -> Result<Duration, String> {
    let span = parse_span(text)?;
    if span.get_years() != 0 || span.get_months() != 0 {
        return Err(format!("{text:?}: give days and hours, such as 7d or 36h"));
    }
    let hours = u64::from(span.get_days().unsigned_abs()) * 24 + u64::from(span.get_hours().unsigned_abs());
    Ok(Duration::from_secs(hours * 3600))
}

/// A short time: a number of seconds, or one with `s`, `m`, `h` or `d`.
pub(crate) fn parse_wait(text: &str) -> Result<Duration, String> {
    let text = text.trim();
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let scale = match unit {
        "" | "s" => Some(1),
        "m" => Some(60),
        "h" => Some(3600),
        "d" => Some(24 * 3600),
        _ => None,
    };
    let seconds = number.parse::<u64>().ok().zip(scale).and_then(|(number, scale)| number.checked_mul(scale));
    seconds.map(Duration::from_secs).ok_or_else(|| format!("{text:?} is not a time such as 90s, 10m or 2h"))
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
