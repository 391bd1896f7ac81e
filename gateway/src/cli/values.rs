//! Values of the command line, checked before anything is asked of the gateway.

use std::time::Duration;

use dialhome_proto::id::is_name;
use dialhome_proto::statement::is_endpoint;

use crate::image::name::ImageName;
use crate::serve::QuicAt;

/// A device's id, or a product.
pub(crate) fn name(text: &str) -> Result<String, String> {
    if is_name(text) {
        Ok(text.into())
    } else {
        Err("use 1 to 64 letters, digits, _ and -".into())
    }
}

/// HOST:PORT.
pub(crate) fn gateway(text: &str) -> Result<String, String> {
    if is_endpoint(text) {
        Ok(text.into())
    } else {
        Err("write HOST:PORT, an IPv6 address in brackets".into())
    }
}

/// ADDR:PORT, or `off`.
pub(crate) fn quic(text: &str) -> Result<QuicAt, String> {
    match text {
        "off" => Ok(QuicAt::Off),
        address => address
            .parse()
            .map(QuicAt::Address)
            .map_err(|_| "write ADDR:PORT, an IPv6 address in brackets, or off".into()),
    }
}

/// `P[/component]@V`, as the gateway writes it.
pub(crate) fn image(text: &str) -> Result<String, String> {
    text.parse::<ImageName>()
        .map(|name| name.to_string())
        .map_err(|error| error.to_string())
}

/// `30s`, `5m`, `2h`, `7d`.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    let wrong = || "write a number and s, m, h or d, as in 30s, 5m, 2h or 7d".to_owned();
    let unit = text.chars().last().ok_or_else(wrong)?;
    let seconds: u64 = match unit {
        's' => 1,
        'm' => 60,
        'h' => 3600,
        'd' => 24 * 3600,
        _ => return Err(wrong()),
    };
    let number = &text[..text.len() - 1];
    if number.is_empty() || !number.bytes().all(|digit| digit.is_ascii_digit()) {
        return Err(wrong());
    }
    let number: u64 = number.parse().map_err(|_| wrong())?;
    match number.checked_mul(seconds) {
        Some(0) => Err("it must be longer than nothing".into()),
        Some(seconds) => Ok(Duration::from_secs(seconds)),
        None => Err("it is too long".into()),
    }
}

/// Time for a ping to be answered: `1s` to `30s`, as the gateway takes it.
pub(crate) fn ping_wait(text: &str) -> Result<Duration, String> {
    let wait = duration(text).ok();
    wait.filter(|wait| (1..=30).contains(&wait.as_secs()))
        .ok_or_else(|| "write 1s to 30s, in whole seconds".into())
}

/// Bytes per second: `20000`, `500K`, `10M`, `1G` of 1000 each, `512Ki`, `1Mi` of 1024.
pub(crate) fn rate(text: &str) -> Result<u64, String> {
    let wrong = || "write a number and K, M or G, as in 500K or 10M".to_owned();
    let digits = text.trim_end_matches(|letter: char| !letter.is_ascii_digit());
    let unit: u64 = match &text[digits.len()..] {
        "" => 1,
        "K" | "k" => 1_000,
        "M" => 1_000_000,
        "G" => 1_000_000_000,
        "Ki" => 1 << 10,
        "Mi" => 1 << 20,
        "Gi" => 1 << 30,
        _ => return Err(wrong()),
    };
    if digits.is_empty() || !digits.bytes().all(|digit| digit.is_ascii_digit()) {
        return Err(wrong());
    }
    let number: u64 = digits.parse().map_err(|_| wrong())?;
    match number.checked_mul(unit) {
        Some(rate) if rate < RATE_MIN => Err("it must be 1K at least".into()),
        Some(rate) if rate <= RATE_MAX => Ok(rate),
        _ => Err("it must be 1000G at most".into()),
    }
}

/// Least and greatest rate, in bytes per second.
const RATE_MIN: u64 = 1_000;
const RATE_MAX: u64 = 1_000_000_000_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_have_a_number_and_a_unit_of_a_thousand_or_1024() {
        assert_eq!(rate("20000"), Ok(20_000));
        assert_eq!(rate("500K"), Ok(500_000));
        assert_eq!(rate("10M"), Ok(10_000_000));
        assert_eq!(rate("1Gi"), Ok(1 << 30));
        for wrong in [
            "",
            "K",
            "0",
            "999",
            "1.5M",
            "-1M",
            "10m",
            "10MB",
            "10 M",
            "1001G",
            "99999999999999999999",
        ] {
            assert!(rate(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_ping_is_waited_for_1_to_30_seconds() {
        assert_eq!(ping_wait("1s"), Ok(Duration::from_secs(1)));
        assert_eq!(ping_wait("30s"), Ok(Duration::from_secs(30)));
        for wrong in ["31s", "0s", "500ms", "1m", "5", "", "1.5s"] {
            let error = ping_wait(wrong).unwrap_err();
            assert!(error.contains("1s to 30s"), "{wrong}: {error}");
        }
    }

    #[test]
    fn durations_have_a_number_and_a_unit() {
        assert_eq!(duration("30s"), Ok(Duration::from_secs(30)));
        assert_eq!(duration("5m"), Ok(Duration::from_secs(300)));
        assert_eq!(duration("2h"), Ok(Duration::from_secs(7200)));
        assert_eq!(duration("7d"), Ok(Duration::from_secs(604_800)));
        for wrong in [
            "",
            "s",
            "5",
            "-5s",
            "+5s",
            "5 s",
            "0s",
            "1.5h",
            "5w",
            "5é",
            "99999999999999999999d",
            "18446744073709551615d",
        ] {
            assert!(duration(wrong).is_err(), "{wrong}");
        }
    }
}
