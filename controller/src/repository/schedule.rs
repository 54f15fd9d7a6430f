//! When maintenance is due.

use croner::{Cron, parser::CronParser};
use jiff::{Timestamp, tz::TimeZone};

use crate::error::Obstacle;

/// The first time after `last` that a schedule names, in UTC.
pub(super) fn next(schedule: &str, last: Timestamp) -> Result<Timestamp, Obstacle> {
    let wrong = |error: croner::errors::CronError| {
        Obstacle::invalid(format!(
            "spec.maintenance.schedule \"{schedule}\": {error}: use five fields of cron, such as 0 3 * * *"
        ))
    };
    let cron: Cron = CronParser::new().parse(schedule).map_err(wrong)?;
    let next = cron.find_next_occurrence(&last.to_zoned(TimeZone::UTC), false).map_err(wrong)?;
    Ok(next.timestamp())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_schedule_is_in_utc_and_a_wrong_one_is_named() {
        let at = |text: &str| text.parse::<Timestamp>().expect("a time");
        assert_eq!(next("0 3 * * *", at("2026-11-29T02:59:59Z")), Ok(at("2026-11-29T03:00:00Z")));
        assert_eq!(next("0 3 * * *", at("2026-11-29T03:00:00Z")), Ok(at("2026-11-30T03:00:00Z")));
        assert_eq!(next("*/20 * * * 1", at("2026-11-29T03:00:00Z")), Ok(at("2026-11-30T00:00:00Z")));
        assert!(
            next("99 3 * * *", at("2026-11-29T03:00:00Z")).expect_err("refused").message.contains("99 3")
        );
    }
}
