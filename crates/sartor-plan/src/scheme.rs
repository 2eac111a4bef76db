//! From the chip's arithmetic to the configuration of a technique.

use sartor_chip::{Chip, Granularity, NumberType, Quirk, ScaleKind, Scheme};
use sartor_compress::{
    ActivationFormat, ActivationType, QuantizeStatic, ScaleKind as Scales, WeightFormat, WeightType,
};

/// How a chip wants convolutions and matrix products quantized.
#[derive(Clone, Debug, PartialEq)]
pub struct QuantizationScheme {
    /// The technique's configuration, without a choice of ranges.
    pub config: QuantizeStatic,
    /// Weight and activation type.
    pub types: (NumberType, NumberType),
    /// Why this scheme, in words.
    pub reason: String,
}

/// The 8-bit scheme that the chip runs fastest; `None`, with the reason, if it has none or gains nothing by it.
///
/// # Errors
/// The sentence that says why not.
pub fn quantization_scheme(chip: &Chip) -> Result<QuantizationScheme, String> {
    let Some(scheme) = chip.preferred_scheme("Conv") else {
        return Err(format!("{} has no integer arithmetic for convolutions", chip.name));
    };
    let Some(mode) = chip.mode(scheme.weights, scheme.activations) else {
        return Err(format!(
            "{} has no figures for {} × {}",
            chip.name, scheme.weights, scheme.activations
        ));
    };
    let eight = |it: NumberType| matches!(it, NumberType::I8 | NumberType::U8);
    if !eight(scheme.weights) || !eight(scheme.activations) {
        return Err(format!(
            "{} wants {} × {}, which is not static INT8",
            chip.name, scheme.weights, scheme.activations
        ));
    }
    let rate = chip.rate(mode);
    let reason = match chip.float_mode() {
        None => format!(
            "{} computes in integers only ({} × {})",
            chip.name, scheme.weights, scheme.activations
        ),
        Some(float) => {
            let gain = rate / chip.rate(float);
            let bytes = f64::from(32u8) / f64::from(scheme.weights.bits());
            if gain <= 1.0 {
                return Err(format!(
                    "{} is no faster in {} than in float",
                    chip.name, scheme.weights
                ));
            }
            format!(
                "{} computes {gain:.1}× as fast in {} × {} as in float and moves {bytes:.0}× fewer bytes",
                chip.name, scheme.weights, scheme.activations
            )
        }
    };
    let types = (scheme.weights, scheme.activations);
    Ok(QuantizationScheme {
        config: configuration(chip, scheme),
        types,
        reason: format!("{reason}{}", quirks(chip, scheme)),
    })
}

/// Activation types that the chip's runtime is known to run slower than floats, as a reason not to choose them.
fn quirks(chip: &Chip, scheme: &Scheme) -> String {
    let other = if scheme.activations == NumberType::U8 { NumberType::I8 } else { NumberType::U8 };
    let slow = |it: &&Quirk| {
        it.activations == Some(other)
            && it.speed_over_float.as_ref().is_some_and(|it| it.value < 1.0)
    };
    let slow = chip.quirks_of(scheme.weights, other).filter(slow);
    let words: Vec<_> =
        slow.map(|it| format!("; {other} activations avoided: {}", it.text)).collect();
    words.concat()
}

fn configuration(chip: &Chip, scheme: &Scheme) -> QuantizeStatic {
    let unsigned = |it: NumberType| it == NumberType::U8;
    QuantizeStatic {
        weights: WeightFormat {
            dtype: if unsigned(scheme.weights) { WeightType::Uint8 } else { WeightType::Int8 },
            per_channel: scheme.granularity.contains(&Granularity::Channel),
            ..WeightFormat::default()
        },
        activations: ActivationFormat {
            dtype: if unsigned(scheme.activations) {
                ActivationType::Uint8
            } else {
                ActivationType::Int8
            },
            symmetric: scheme.activations_symmetric,
        },
        scales: scales_of(chip),
        ..QuantizeStatic::default()
    }
}

/// The scales that the chip applies.
pub(crate) fn scales_of(chip: &Chip) -> Scales {
    match chip.core.arithmetic.scale {
        ScaleKind::Pow2 => Scales::PowerOfTwo,
        ScaleKind::Float | ScaleKind::Fixed => Scales::Float,
    }
}
