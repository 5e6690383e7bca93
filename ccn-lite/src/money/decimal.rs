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

/// Largest power of ten, up or down, that is read: a short text must not become a number of a million digits.
const MAX_EXPONENT: u32 = 64;

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
        let (digits, exponent) = text.split_once(['e', 'E']).unwrap_or((text, "0"));
        let plain = text.len() <= MAX_CHARS
            && digits
                .bytes()
                .all(|c| c.is_ascii_digit() || matches!(c, b'.' | b'-'));
        let exponent: i32 = exponent.parse().map_err(|_| error())?;
        if !plain || exponent.unsigned_abs() > MAX_EXPONENT {
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

/// An exact sum of amounts with at most 18 places, as stored, without a decimal number for each of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sum {
    /// Units of 10^-18.
    atto: i128,
}

impl Sum {
    /// Adds an amount written by [`Decimal::to_fixed`]; anything else counts as nothing.
    pub fn add(&mut self, amount: &str) {
        self.atto = self.atto.saturating_add(atto(amount).unwrap_or_default());
    }

    /// Takes away an amount written by [`Decimal::to_fixed`]; anything else counts as nothing.
    pub fn subtract(&mut self, amount: &str) {
        self.atto = self.atto.saturating_sub(atto(amount).unwrap_or_default());
    }

    /// The sum.
    pub fn total(self) -> Decimal {
        Decimal(BigDecimal::new(self.atto.into(), PLACES))
    }
}

fn atto(amount: &str) -> Option<i128> {
    const PLACES: usize = 18;
    let (negative, digits) = match amount.strip_prefix('-') {
        Some(digits) => (true, digits),
        None => (false, amount),
    };
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    if fraction.len() > PLACES
        || !(whole.bytes().chain(fraction.bytes())).all(|c| c.is_ascii_digit())
    {
        return None;
    }
    let whole: i128 = whole.parse().ok()?;
    let places = u32::try_from(PLACES - fraction.len()).ok()?;
    let fraction: i128 = if fraction.is_empty() {
        0
    } else {
        fraction.parse().ok()?
    };
    let fraction = fraction.checked_mul(10_i128.pow(places))?;
    let sum = whole.checked_mul(10_i128.pow(18))?.checked_add(fraction)?;
    Some(if negative { -sum } else { sum })
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
    fn small_exponents_are_read_and_large_ones_refused() {
        assert_eq!(decimal("1e-7"), decimal("0.0000001"));
        assert_eq!(decimal("-2.5E+3"), decimal("-2500"));
        assert!("1e999999999".parse::<Decimal>().is_err());
        assert!("1e".parse::<Decimal>().is_err());
        assert!("".parse::<Decimal>().is_err());
    }

    proptest! {
        #[test]
        fn a_sum_of_stored_amounts_is_exact(amounts in prop::collection::vec((any::<i64>(), 0_i64..=18), 0..20)) {
            let amounts: Vec<Decimal> = amounts
                .into_iter()
                .map(|(digits, places)| Decimal(BigDecimal::new(digits.into(), places)))
                .collect();
            let mut sum = Sum::default();
            for amount in &amounts {
                sum.add(&amount.to_fixed());
            }
            let exact: BigDecimal = amounts.iter().map(|amount| &amount.0).sum();
            prop_assert_eq!(sum.total().0, exact);
            for amount in &amounts {
                sum.subtract(&amount.to_fixed());
            }
            prop_assert_eq!(sum, Sum::default());
        }

        #[test]
        fn any_text_is_safe(text in "[0-9.eE+-]{0,90}") {
            if let Ok(number) = text.parse::<Decimal>() {
                let _ = (number.to_string(), number.to_fixed(), number.to_f64());
            }
        }
    }
}
