//! Times as clients of this interface read them: `2026-01-01 12:00:00.123456+00:00`.

use time::OffsetDateTime;
use time::format_description::BorrowedFormatItem;
use time::macros::format_description;

const FORMAT: &[BorrowedFormatItem<'static>] =
    format_description!("[year]-[month]-[day] [hour]:[minute]:[second].[subsecond digits:6]+00:00");

/// Unix microseconds as text.
pub(super) fn text(us: i64) -> String {
    OffsetDateTime::from_unix_timestamp_nanos(i128::from(us) * 1000)
        .ok()
        .and_then(|time| time.format(FORMAT).ok())
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    #[test]
    fn times_have_a_space_and_six_digits() {
        assert_eq!(
            super::text(1_767_268_800_123_456),
            "2026-01-01 12:00:00.123456+00:00"
        );
        assert_eq!(super::text(0), "1970-01-01 00:00:00.000000+00:00");
    }
}
