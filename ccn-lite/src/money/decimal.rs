//! Decimal numbers with the network's arithmetic: 28 significant digits rounded half to even, amounts floored at 18
//! places.

use std::num::NonZeroU64;
use std::str::FromStr;

use bigdecimal::{BigDecimal, RoundingMode, ToPrimitive, Zero};

/// Significant digits kept by every operation.
const PRECISION: NonZeroU64 = NonZeroU64::new(28).unwrap();

/// Places an amount is floored to.
const PLACES: i64 = 18;

/// Longest text that is read as a number.
const MAX_CHARS: usize = 80;

/// A decimal number.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Decimal(BigDecimal);

/// Text that is no plain decimal number.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a decimal number")]
pub struct ParseDecimalError(String);

impl Decimal {
    /// Zero.
    pub fn zero() -> Self {
        Self(BigDecimal::zero())
    }

    /// A size in MiB, exact to the byte.
    pub fn mib_of_bytes(bytes: u64) -> Self {
        // Bytes over 2^20 is bytes times 5^20 over 10^20.
        let scaled = bigdecimal::num_bigint::BigInt::from(bytes) * 5_u64.pow(20);
        Self(BigDecimal::new(scaled, 20))
    }

    fn rounded(number: BigDecimal) -> Self {
        if number.digits() <= PRECISION.get() {
            return Self(number);
        }
        Self(number.with_precision_round(PRECISION, RoundingMode::HalfEven))
    }

    /// Sum.
    pub fn plus(&self, other: &Self) -> Self {
        Self::rounded(&self.0 + &other.0)
    }

    /// Product.
    pub fn times(&self, other: &Self) -> Self {
        Self::rounded(&self.0 * &other.0)
    }

    /// Quotient by a number that is not zero.
    pub fn over(&self, divisor: u32) -> Self {
        // The library divides to 100 digits, far beyond what the rounding here can see.
        Self::rounded(&self.0 / BigDecimal::from(divisor.max(1)))
    }

    /// The negative.
    pub fn negated(&self) -> Self {
        Self(-self.0.clone())
    }

    /// Rounded down to 18 places.
    pub fn floored(&self) -> Self {
        Self(self.0.with_scale_round(PLACES, RoundingMode::Floor))
    }

    /// The nearest float, for fields that are JSON numbers.
    pub fn to_f64(&self) -> f64 {
        self.0.to_f64().unwrap_or(f64::MAX)
    }

    /// Text with 18 places.
    pub fn to_fixed(&self) -> String {
        self.floored().0.to_plain_string()
    }
}

impl From<u64> for Decimal {
    fn from(number: u64) -> Self {
        Self(number.into())
    }
}

impl From<i64> for Decimal {
    fn from(number: i64) -> Self {
        Self(number.into())
    }
}

impl FromStr for Decimal {
    type Err = ParseDecimalError;

    fn from_str(text: &str) -> Result<Self, ParseDecimalError> {
        let error = || ParseDecimalError(text.chars().take(MAX_CHARS).collect());
        // Exponents are refused: a short text must not become a number of a million digits.
        let plain = text.len() <= MAX_CHARS
            && text
                .bytes()
                .all(|c| c.is_ascii_digit() || matches!(c, b'.' | b'-'));
        if !plain {
            return Err(error());
        }
        BigDecimal::from_str(text).map(Self).map_err(|_| error())
    }
}

impl std::fmt::Display for Decimal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0.to_plain_string())
    }
}

impl std::iter::Sum for Decimal {
    fn sum<I: Iterator<Item = Self>>(iter: I) -> Self {
        iter.fold(Self::zero(), |sum, number| sum.plus(&number))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn decimal(text: &str) -> Decimal {
        text.parse().unwrap()
    }

    #[test]
    fn a_quotient_keeps_28_digits_and_amounts_18_places() {
        assert_eq!(
            decimal("14250").over(3600).to_string(),
            "3.958333333333333333333333333"
        );
        assert_eq!(
            decimal("14250").over(3600).to_fixed(),
            "3.958333333333333333"
        );
        assert_eq!(
            decimal("-14250").over(3600).to_fixed(),
            "-3.958333333333333334"
        );
        assert_eq!(
            decimal("2").over(3).to_string(),
            "0.6666666666666666666666666667"
        );
        assert_eq!(Decimal::zero().to_fixed(), "0.000000000000000000");
    }

    #[test]
    fn sizes_are_exact_to_the_byte() {
        assert_eq!(Decimal::mib_of_bytes(1), decimal("0.00000095367431640625"));
        assert_eq!(Decimal::mib_of_bytes(5 << 20), Decimal::from(5_u64));
    }

    #[test]
    fn exponents_are_refused() {
        assert!("1e999999999".parse::<Decimal>().is_err());
        assert!("".parse::<Decimal>().is_err());
    }

    proptest! {
        #[test]
        fn any_text_is_safe(text in "[0-9.eE+-]{0,90}") {
            if let Ok(number) = text.parse::<Decimal>() {
                let _ = (number.to_string(), number.to_fixed(), number.to_f64());
            }
        }
    }
}
