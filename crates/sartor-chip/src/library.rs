//! The chips that come with the crate.

use crate::chip::Chip;
use crate::error::{ChipError, Fault};
use crate::suggest::nearest;

/// A chip file of the library.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LibraryEntry {
    /// The chip's id.
    pub id: &'static str,
    /// The text of its file.
    pub toml: &'static str,
}

impl LibraryEntry {
    /// Reads the file.
    ///
    /// # Errors
    /// As [`Chip::parse`]; tests keep the library free of them.
    pub fn chip(&self) -> Result<Chip, ChipError> {
        Chip::parse(self.id, self.toml)
    }
}

macro_rules! entries {
    ($($id:literal),+ $(,)?) => {
        &[$(LibraryEntry { id: $id, toml: include_str!(concat!("../chips/", $id, ".toml")) }),+]
    };
}

const LIBRARY: &[LibraryEntry] = entries![
    "nvidia-a100",
    "nvidia-h100",
    "nvidia-h200",
    "nvidia-l4",
    "nvidia-t4",
    "jetson-nano",
    "jetson-xavier-nx",
    "jetson-orin-nano",
    "jetson-orin-nano-super",
    "jetson-orin-nx",
    "jetson-agx-orin",
    "intel-xeon-icx",
    "intel-xeon-spr",
    "intel-myriad-x",
    "intel-npu-3720",
    "intel-npu-4000",
    "google-coral-edgetpu",
    "google-tpu-v4",
    "google-tpu-v5e",
    "arm-ethos-u55-32",
    "arm-ethos-u55-64",
    "arm-ethos-u55-128",
    "arm-ethos-u55-256",
    "arm-ethos-u65-256",
    "arm-ethos-u65-512",
    "arm-ethos-u85-128",
    "arm-ethos-u85-256",
    "arm-ethos-u85-512",
    "arm-ethos-u85-1024",
    "arm-ethos-u85-2048",
    "arm-cortex-m4",
    "arm-cortex-m7",
    "arm-cortex-m55",
    "arm-cortex-a76",
    "arm-neoverse-n1",
    "qualcomm-htp-v73",
    "qualcomm-htp-v75",
    "rockchip-rk3588",
    "hailo-8",
    "apple-ane-a14-m1",
    "kendryte-k210",
    "espressif-esp32-s3",
    "espressif-esp32-p4",
    "st-stm32n6",
    "mythic-m1076",
    "ibm-hermes",
    "ibm-hermes-1phase",
    "neurram",
    "isaac-ref",
    "cim-sram-ref",
];

/// Every chip of the library.
pub fn library() -> &'static [LibraryEntry] {
    LIBRARY
}

/// What a library chip may extend: another chip of the library, by its id.
pub fn library_bases(_from: &str, wanted: &str) -> Option<(String, String)> {
    let entry = LIBRARY.iter().find(|entry| entry.id == wanted)?;
    Some((entry.id.to_owned(), entry.toml.to_owned()))
}

/// The chip with this id.
///
/// # Errors
/// An unknown id, with the nearest known one.
pub fn find(id: &str) -> Result<Chip, ChipError> {
    if let Some(entry) = LIBRARY.iter().find(|entry| entry.id == id) {
        return entry.chip();
    }
    let ids = LIBRARY.iter().map(|entry| entry.id);
    let help = match nearest(id, ids.clone()) {
        Some(known) => format!("did you mean `{known}`?"),
        None => format!("the library holds {}", ids.collect::<Vec<_>>().join(", ")),
    };
    Err(ChipError {
        chip: id.to_owned(),
        key: None,
        place: None,
        help: Some(help),
        fault: Box::new(Fault::UnknownChip),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_id_names_the_nearest() {
        let error = find("nvidia-a10").unwrap_err();
        assert_eq!(error.help.as_deref(), Some("did you mean `nvidia-a100`?"));
        assert_eq!(error.to_string(), "chip `nvidia-a10`: not in the library");
        assert!(find("z80").unwrap_err().help.unwrap().contains("arm-cortex-m7"));
    }
}
