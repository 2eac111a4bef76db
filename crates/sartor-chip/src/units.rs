//! Physical quantities as types. They print with three significant digits and an SI prefix: `1.23 ms`, `332 kB`.

use std::fmt;
use std::iter::Sum;
use std::ops::{Add, AddAssign, Div, Mul, Sub};

use serde::{Deserialize, Serialize};

/// Declares a quantity held as `f64`.
macro_rules! quantity {
    ($(#[$doc:meta])* $name:ident, $symbol:literal) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, PartialOrd, Default, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub f64);

        impl $name {
            /// The larger of two.
            #[must_use]
            pub fn max(self, other: Self) -> Self {
                Self(self.0.max(other.0))
            }
        }

        impl Mul<f64> for $name {
            type Output = Self;
            fn mul(self, factor: f64) -> Self {
                Self(self.0 * factor)
            }
        }

        impl Div<f64> for $name {
            type Output = Self;
            fn div(self, divisor: f64) -> Self {
                Self(self.0 / divisor)
            }
        }

        additive!($name, $symbol);
    };
}

/// Declares a quantity that is counted in whole units; sums and differences saturate.
macro_rules! count {
    ($(#[$doc:meta])* $name:ident, $symbol:literal) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub u64);

        impl Add for $name {
            type Output = Self;
            fn add(self, other: Self) -> Self {
                Self(self.0.saturating_add(other.0))
            }
        }

        impl Sub for $name {
            type Output = Self;
            fn sub(self, other: Self) -> Self {
                Self(self.0.saturating_sub(other.0))
            }
        }

        impl Mul<u64> for $name {
            type Output = Self;
            fn mul(self, factor: u64) -> Self {
                Self(self.0.saturating_mul(factor))
            }
        }

        shared!($name, $symbol);
    };
}

macro_rules! additive {
    ($name:ident, $symbol:literal) => {
        impl Add for $name {
            type Output = Self;
            fn add(self, other: Self) -> Self {
                Self(self.0 + other.0)
            }
        }

        impl Sub for $name {
            type Output = Self;
            fn sub(self, other: Self) -> Self {
                Self(self.0 - other.0)
            }
        }

        shared!($name, $symbol);
    };
}

macro_rules! shared {
    ($name:ident, $symbol:literal) => {
        impl AddAssign for $name {
            fn add_assign(&mut self, other: Self) {
                *self = *self + other;
            }
        }

        impl Sum for $name {
            fn sum<I: Iterator<Item = Self>>(values: I) -> Self {
                values.fold(Self::default(), Add::add)
            }
        }

        impl Div for $name {
            type Output = f64;
            /// The ratio of two quantities of one kind.
            fn div(self, other: Self) -> f64 {
                self.0 as f64 / other.0 as f64
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&with_prefix(self.0 as f64, $symbol))
            }
        }
    };
}

quantity!(/// A frequency in hertz.
    Hertz, "Hz");
quantity!(/// A duration in seconds.
    Seconds, "s");
quantity!(/// An energy in joules.
    Joules, "J");
quantity!(/// A power in watts.
    Watts, "W");
quantity!(/// A bandwidth in bytes a second (1 kB = 1000 B).
    BytesPerSecond, "B/s");
quantity!(/// A throughput in multiply-accumulates a second; 1 MAC is 2 operations where vendors print TOPS.
    MacsPerSecond, "MAC/s");
quantity!(/// Clock cycles; fractions arise where work overlaps.
    Cycles, "cycles");
count!(/// An amount of memory in bytes (1 kB = 1000 B).
    Bytes, "B");
count!(/// Multiply-accumulates.
    Macs, "MAC");

impl Bytes {
    /// Kibibytes (1024 B).
    pub fn kib(n: u64) -> Self {
        Self(n.saturating_mul(1024))
    }
}

impl MacsPerSecond {
    /// The figure that data sheets print: operations a second, two to a MAC.
    pub fn ops_per_second(self) -> f64 {
        self.0 * 2.0
    }
}

/// Declares the law `$lhs / $rhs = $quotient`.
macro_rules! quotient {
    ($lhs:ident / $rhs:ident = $quotient:ident) => {
        impl Div<$rhs> for $lhs {
            type Output = $quotient;
            fn div(self, divisor: $rhs) -> $quotient {
                $quotient(self.0 as f64 / divisor.0)
            }
        }
    };
}
quotient!(Bytes / BytesPerSecond = Seconds);
quotient!(Bytes / Seconds = BytesPerSecond);
quotient!(Macs / MacsPerSecond = Seconds);
quotient!(Macs / Seconds = MacsPerSecond);
quotient!(Cycles / Hertz = Seconds);
quotient!(Joules / Seconds = Watts);

impl Mul<Seconds> for Watts {
    type Output = Joules;
    fn mul(self, duration: Seconds) -> Joules {
        Joules(self.0 * duration.0)
    }
}

impl Mul<Hertz> for Seconds {
    type Output = Cycles;
    fn mul(self, frequency: Hertz) -> Cycles {
        Cycles(self.0 * frequency.0)
    }
}

/// Writes `value` with three significant digits and an SI prefix before `symbol`; whole numbers below 1000 stay whole.
fn with_prefix(value: f64, symbol: &str) -> String {
    const PREFIXES: [(f64, &str); 11] = [
        (1e18, "E"),
        (1e15, "P"),
        (1e12, "T"),
        (1e9, "G"),
        (1e6, "M"),
        (1e3, "k"),
        (1.0, ""),
        (1e-3, "m"),
        (1e-6, "µ"),
        (1e-9, "n"),
        (1e-12, "p"),
    ];
    let size = value.abs();
    #[expect(clippy::float_cmp, reason = "whether the number is whole is an exact question")]
    let whole = value.trunc() == value && size < 1e3;
    if whole || !value.is_finite() {
        return format!("{value} {symbol}");
    }
    // 999.5 would print as "1000": from there on the next prefix is used.
    let (scale, prefix) =
        PREFIXES.into_iter().find(|(scale, _)| size >= scale * 0.9995).unwrap_or((1e-12, "p"));
    let scaled = value / scale;
    let decimals = match scaled.abs() {
        x if x < 9.995 => 2,
        x if x < 99.95 => 1,
        _ => 0,
    };
    format!("{scaled:.decimals$} {prefix}{symbol}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_significant_digits() {
        for (value, expected) in [
            (0.0, "0 s"),
            (0.001_234, "1.23 ms"),
            (0.999_6, "1.00 s"),
            (0.012_34, "12.3 ms"),
            (4e-6, "4.00 µs"),
            (5.0, "5 s"),
            (99.96, "100 s"),
            (-0.001_5, "-1.50 ms"),
            (f64::INFINITY, "inf s"),
            (1e-15, "0.00 ps"),
        ] {
            assert_eq!(Seconds(value).to_string(), expected, "{value}");
        }
        assert_eq!(Bytes(332_104).to_string(), "332 kB");
        assert_eq!(Bytes(999_500).to_string(), "1.00 MB");
        assert_eq!(Bytes(12).to_string(), "12 B");
        assert_eq!(MacsPerSecond(312e12).to_string(), "312 TMAC/s");
        assert_eq!(BytesPerSecond(2.039e12).to_string(), "2.04 TB/s");
        assert_eq!(format!("{:>10}", Watts(400.0)), "     400 W");
    }

    #[test]
    fn quantities_combine_by_their_dimensions() {
        assert_eq!(Bytes(1000) / BytesPerSecond(1e6), Seconds(1e-3));
        assert_eq!(Cycles(500.0) / Hertz(5e8), Seconds(1e-6));
        assert_eq!(Macs(2_000) / MacsPerSecond(1e3), Seconds(2.0));
        assert_eq!(Watts(2.0) * Seconds(0.5), Joules(1.0));
        assert_eq!(Seconds(2.0) * Hertz(3.0), Cycles(6.0));
        assert_eq!([Bytes(1), Bytes(2)].into_iter().sum::<Bytes>(), Bytes(3));
        assert_eq!(Bytes(1) - Bytes(2), Bytes(0));
        assert!((Seconds(1.0) / Seconds(4.0) - 0.25).abs() < 1e-15);
        assert_eq!(serde_json::to_string(&Seconds(0.5)).unwrap(), "0.5");
    }
}
