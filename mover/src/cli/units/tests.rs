use super::*;

#[test]
fn sizes() {
    for (text, bytes) in [
        ("0", 0),
        ("17", 17),
        ("96MiB", 96 << 20),
        ("96M", 96 << 20),
        ("96m", 96 << 20),
        ("1.5 GiB", 3 << 29),
        ("2KB", 2000),
        ("3b", 3),
        ("1TiB", 1 << 40),
    ] {
        assert_eq!(parse_size(text), Ok(bytes), "{text}");
    }
    for text in ["", "MiB", "-1", "1X", "1 MiB x", "1e9", "..", "99999999PiB"] {
        assert!(parse_size(text).is_err(), "{text}");
    }
}

#[test]
fn rates_are_kib_without_a_unit() {
    assert_eq!(parse_rate("100"), Ok(100 << 10));
    assert_eq!(parse_rate("10MiB/s"), Ok(10 << 20));
    assert_eq!(parse_rate("512B"), Ok(512));
    assert!(parse_rate("0").is_err());
}

#[test]
fn percentages() {
    assert_eq!(parse_percent("5%"), Ok(5.0));
    assert_eq!(parse_percent("0.5"), Ok(0.5));
    for text in ["0", "101%", "x", "", "NaN", "-3%"] {
        assert!(parse_percent(text).is_err(), "{text}");
    }
}

#[test]
fn compressions() {
    assert_eq!(parse_compression("auto"), Ok(CompressionArg::Auto));
    assert_eq!(parse_compression("off"), Ok(CompressionArg::Off));
    assert_eq!(parse_compression("7"), Ok(CompressionArg::Level(7)));
    assert_eq!(parse_compression("2..9"), Ok(CompressionArg::Between(2, 9)));
    for text in ["", "0", "20", "9..2", "1..", "..3", "max", "-1"] {
        assert!(parse_compression(text).is_err(), "{text}");
    }
}

#[test]
fn spans() {
    let span = parse_span("1y6m3d12h").expect("a span");
    assert_eq!((span.get_years(), span.get_months(), span.get_days(), span.get_hours()), (1, 6, 3, 12));
    for text in ["", "12", "d", "1w", "1y2", "1 d", "-1d", "3d3d", "1dd"] {
        let error = parse_span(text).expect_err(text);
        assert!(error.contains("1y6m3d12h"), "{error}");
    }
    for text in ["99999999999y", "99999999999999999999d", "30000y"] {
        let error = parse_span(text).expect_err(text);
        assert!(error.contains("longer than the calendar"), "{error}");
    }
}

#[test]
fn times_have_one_kind_of_units() {
    for (text, seconds) in
        [("90s", 90), ("10m", 600), ("2h", 7200), ("7d", 604_800), ("1d12h", 129_600), ("1h0m5s", 3605)]
    {
        assert_eq!(parse_time(text), Ok(Duration::from_secs(seconds)), "{text}");
        assert_eq!(parse_wait(text), parse_time(text), "{text}");
    }
    for text in ["0", "0s", "0h", "0d0s"] {
        assert_eq!(parse_wait(text), Ok(Duration::ZERO), "{text}");
        assert!(parse_time(text).is_err_and(|error| error.contains("more than zero")), "{text}");
    }
    for text in ["", "7", "h", "1y", "-1h", "-5m", "1h1h", "1m2h", "1h 5m", "1,5h", "5\u{b5}s", "1.5h"] {
        assert!(
            parse_wait(text).is_err_and(|error| error.contains("seconds, minutes, hours, days")),
            "{text}"
        );
    }
    for text in ["99999999999999999999s", "999999999999999999d"] {
        assert!(parse_wait(text).is_err_and(|error| error.contains("too long")), "{text}");
    }
}

#[test]
fn counts_and_tags() {
    assert_eq!(parse_count::<u32>("7"), Ok(7));
    for (text, part) in
        [("-1", "0 or more"), ("x", "0 or more"), ("", "0 or more"), ("4294967296", "too large")]
    {
        assert!(parse_count::<u32>(text).is_err_and(|error| error.contains(part)), "{text}");
    }
    assert_eq!(parse_tags("a,b"), Ok("a,b".into()));
    for text in ["", ",", "a,", "a,,b"] {
        assert!(parse_tags(text).is_err_and(|error| error.contains("empty")), "{text}");
    }
}

#[test]
fn shown_numbers() {
    assert_eq!(size(0), "0 B");
    assert_eq!(size(1023), "1023 B");
    assert_eq!(size(1536), "1.50 KiB");
    assert_eq!(size(96 << 20), "96.0 MiB");
    assert_eq!(size(500 << 30), "500 GiB");
    assert_eq!(duration(Duration::from_millis(430)), "0.4 s");
    assert_eq!(duration(Duration::from_secs(59)), "59 s");
    assert_eq!(duration(Duration::from_secs(187)), "3:07");
    assert_eq!(duration(Duration::from_secs(7387)), "2:03:07");
    assert_eq!(rate(10 << 20, Duration::from_secs(2)), "5.00 MiB/s");
    assert_eq!(count(1, "file", "files"), "1 file");
}
