//! Floats of 16 bits and less: their values are values of `f32`, on a coarser grid.
//!
//! The 8-bit formats are those of ONNX (<https://onnx.ai/onnx/technical/float8.html>,
//! <https://onnx.ai/onnx/technical/float4.html>); `F8E8M0` and `F4E2M1` are OCP's
//! (Microscaling Formats specification 1.0, section 5.3).

use half::{bf16, f16};

use crate::DType;

/// What numbers a format of at most 8 bits with a sign has.
struct Grid {
    mantissa_bits: i32,
    bias: i32,
    largest: f64,
    /// What stands for numbers beyond the largest.
    beyond: f64,
    /// Whether there is a zero with a minus sign.
    signed_zero: bool,
    /// The code of a NaN.
    nan: u8,
    /// The code of infinity, where there is one.
    infinity: Option<u8>,
    sign: u8,
}

fn grid(dtype: DType) -> Option<Grid> {
    let plain = Grid {
        mantissa_bits: 3,
        bias: 7,
        largest: 448.0,
        beyond: f64::NAN,
        signed_zero: true,
        nan: 0x7f,
        infinity: None,
        sign: 0x80,
    };
    Some(match dtype {
        DType::F8E4M3FN => plain,
        DType::F8E4M3FNUZ => {
            Grid { bias: 8, largest: 240.0, signed_zero: false, nan: 0x80, ..plain }
        }
        DType::F8E5M2 => Grid {
            mantissa_bits: 2,
            bias: 15,
            largest: 57344.0,
            beyond: f64::INFINITY,
            infinity: Some(0x7c),
            ..plain
        },
        DType::F8E5M2FNUZ => Grid {
            mantissa_bits: 2,
            bias: 16,
            largest: 57344.0,
            signed_zero: false,
            nan: 0x80,
            ..plain
        },
        // No NaN, no infinity: what is beyond goes to the largest, a NaN to minus zero as in ONNX's tests.
        DType::F4E2M1 => {
            Grid { mantissa_bits: 1, bias: 1, largest: 6.0, beyond: 6.0, nan: 7, sign: 8, ..plain }
        }
        _ => return None,
    })
}

/// The value of `dtype` nearest to `x`, ties to even; a number beyond the largest one becomes the largest
/// one if `saturate`, else infinity or NaN as the format has it. Types that hold every `f32` give it back.
pub fn round(dtype: DType, x: f32, saturate: bool) -> f32 {
    match dtype {
        DType::F16 => f16::from_f32(x).to_f32(),
        DType::BF16 => bf16::from_f32(x).to_f32(),
        DType::F8E8M0 => decode(dtype, encode(dtype, x)),
        _ => grid(dtype).map_or(x, |it| it.round(f64::from(x), saturate) as f32),
    }
}

/// The code of `x`, which is a value of the 8- or 4-bit float type `dtype` (others are rounded to it,
/// saturating); 0 for other types.
pub fn encode(dtype: DType, x: f32) -> u8 {
    if dtype == DType::F8E8M0 {
        return encode_power(x);
    }
    grid(dtype).map_or(0, |it| it.encode(it.round(f64::from(x), true)))
}

/// The value of a code of the 8- or 4-bit float type `dtype`; NaN for other types.
pub fn decode(dtype: DType, code: u8) -> f32 {
    match dtype {
        DType::F8E8M0 if code == u8::MAX => f32::NAN,
        DType::F8E8M0 => 2f64.powi(i32::from(code) - 127) as f32,
        _ => grid(dtype).map_or(f32::NAN, |it| it.decode(code) as f32),
    }
}

/// The least power of two that is not smaller, limited to the format; NaN for what is below 0.
fn encode_power(x: f32) -> u8 {
    if x.is_nan() || x < 0.0 {
        return u8::MAX;
    }
    let exponent = exponent_of(f64::from(x)).max(-127);
    let power = if f64::from(x) > 2f64.powi(exponent) { exponent + 1 } else { exponent };
    (power.min(127) + 127) as u8
}

/// `floor(log2(x))` of a positive number; very small for 0, very large for infinity.
fn exponent_of(x: f64) -> i32 {
    (x.to_bits() >> 52 & 0x7ff) as i32 - 1023
}

impl Grid {
    fn round(&self, x: f64, saturate: bool) -> f64 {
        if x.is_nan() {
            return if self.nan == 7 { -0.0 } else { x };
        }
        let exponent = exponent_of(x.abs()).max(1 - self.bias).min(1000);
        let step = 2f64.powi(exponent - self.mantissa_bits);
        let rounded = (x / step).round_ties_even() * step;
        if rounded == 0.0 && !self.signed_zero {
            return 0.0;
        }
        if rounded.abs() <= self.largest {
            return rounded;
        }
        if saturate { self.largest.copysign(x) } else { self.beyond.copysign(x) }
    }

    fn encode(&self, x: f64) -> u8 {
        let sign = if x.is_sign_negative() { self.sign } else { 0 };
        if x.is_nan() {
            return if self.signed_zero { self.nan | sign } else { self.nan };
        }
        if x.is_infinite() {
            return self.infinity.unwrap_or(self.nan) | sign;
        }
        let exponent = exponent_of(x.abs()).max(1 - self.bias);
        let steps = (x.abs() / 2f64.powi(exponent - self.mantissa_bits)) as i32;
        // Below the hidden bit the exponent field is 0, so that the codes go on without a gap.
        let field = ((exponent + self.bias - 1) << self.mantissa_bits) + steps;
        field as u8 | sign
    }

    fn decode(&self, code: u8) -> f64 {
        let magnitude = code & (self.sign - 1);
        let negative = code & self.sign != 0;
        let nan = if self.signed_zero { magnitude == self.nan } else { code == self.nan };
        let value = if let Some(infinity) = self.infinity
            && magnitude >= infinity
        {
            if magnitude == infinity { f64::INFINITY } else { f64::NAN }
        } else if nan && self.nan != 7 {
            f64::NAN
        } else {
            let field = i32::from(magnitude) >> self.mantissa_bits;
            let rest = i32::from(magnitude) & ((1 << self.mantissa_bits) - 1);
            let hidden = if field > 0 { 1 << self.mantissa_bits } else { 0 };
            let power = field.max(1) - self.bias - self.mantissa_bits;
            f64::from(rest + hidden) * 2f64.powi(power)
        };
        if negative { -value } else { value }
    }
}

#[cfg(test)]
#[expect(clippy::float_cmp, reason = "these numbers are exact")]
mod tests {
    use super::*;

    const ALL: [DType; 5] =
        [DType::F8E4M3FN, DType::F8E4M3FNUZ, DType::F8E5M2, DType::F8E5M2FNUZ, DType::F4E2M1];

    #[test]
    fn every_code_comes_back() {
        for dtype in ALL {
            let codes = if dtype == DType::F4E2M1 { 0..=15 } else { 0..=255u8 };
            for code in codes {
                let value = decode(dtype, code);
                if value.is_nan() || value.is_infinite() {
                    continue;
                }
                assert_eq!(encode(dtype, value), code, "{dtype} {value}");
                assert_eq!(round(dtype, value, true), value, "{dtype} {value}");
            }
        }
        for code in 0..=254u8 {
            let value = decode(DType::F8E8M0, code);
            assert_eq!(encode(DType::F8E8M0, value), code, "{value}");
        }
    }

    /// The tables of ONNX's page on `Cast`.
    #[test]
    fn numbers_beyond_the_largest() {
        for (dtype, largest, beyond) in [
            (DType::F8E4M3FN, 448.0, f32::NAN),
            (DType::F8E4M3FNUZ, 240.0, f32::NAN),
            (DType::F8E5M2, 57344.0, f32::INFINITY),
            (DType::F8E5M2FNUZ, 57344.0, f32::NAN),
        ] {
            for x in [1e6f32, f32::INFINITY] {
                assert_eq!(round(dtype, x, true), largest);
                assert_eq!(round(dtype, -x, true), -largest);
                let open = round(dtype, x, false);
                assert!(open == beyond || open.is_nan() && beyond.is_nan(), "{dtype}: {open}");
            }
            assert!(round(dtype, f32::NAN, true).is_nan());
        }
        assert_eq!(round(DType::F4E2M1, 1e3, true), 6.0);
    }

    #[test]
    fn ties_go_to_even() {
        // Neighbours at 1.0 are 1/8 apart with three bits of mantissa, 1/4 with two.
        assert_eq!(round(DType::F8E4M3FN, 1.0625, true), 1.0);
        assert_eq!(round(DType::F8E4M3FN, 1.1875, true), 1.25);
        assert_eq!(round(DType::F8E5M2, 1.125, true), 1.0);
        assert_eq!([2.5, 3.5, 5.0].map(|it| round(DType::F4E2M1, it, true)), [2.0, 4.0, 4.0]);
        assert_eq!(round(DType::F16, 1.0 / 3.0, true), 0.333_251_95);
        assert_eq!(round(DType::F8E4M3FN, 464.0, false), 448.0);
    }
}
