//! Energy of a product in arrays: what is driven, read, sampled, converted, added and buffered.

use sartor_chip::{Crossbar, CrossbarEnergy, Joules};

use super::Use;

/// Bits of a byte.
const BYTE: u64 = 8;

/// The energy of one product; `None` where the chip states neither that of a whole product nor those of all its parts.
///
/// By parts: `slices · (rows · E_dac + cells · E_cell + steps · columns · (E_adc + E_hold + E_add)) + bytes · E_buffer`. A converter
/// without bits (digital sums) costs nothing; so do parts that the chip leaves out beside cells and converters.
pub(crate) fn of_use(crossbar: &Crossbar, energies: &CrossbarEnergy, it: &Use) -> Option<Joules> {
    if let Some(whole) = &energies.product {
        return Some(whole.value * it.arrays as f64);
    }
    let part = |figure: &Option<sartor_chip::Figure<Joules>>| {
        figure.as_ref().map_or(Joules(0.0), |it| it.value)
    };
    let cell = energies.cell.as_ref()?.value;
    let conversion = match (&crossbar.adc_bits, &energies.adc) {
        (None, _) => Joules(0.0),
        (Some(_), Some(adc)) => adc.value,
        (Some(_), None) => return None,
    };
    let column = conversion + part(&energies.sample_hold) + part(&energies.shift_add);
    let slice = part(&energies.dac) * it.rows as f64
        + cell * it.cells as f64
        + column * (it.columns * it.row_steps) as f64;
    let (inputs, outputs) = it.elements;
    let bits = crossbar.input_bits.value;
    let bytes = (inputs + outputs).saturating_mul(bits).div_ceil(BYTE);
    Some(slice * it.slices as f64 + part(&energies.buffer_per_byte) * bytes as f64)
}
