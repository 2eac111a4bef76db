//! NPY, numpy's file of one array: a magic string, a version, a header that is a Python dictionary, then elements
//! (numpy enhancement proposal 1).
//!
//! The header is read here rather than by a Python parser, because files come from anywhere: nothing nests, nothing
//! recurses, and a shape is only believed when its product is a number of bytes.

use std::io::{self, Read};

use crate::Dtype;

/// A header longer than this is no array that we read.
const MAX_HEADER_BYTES: u32 = 1 << 20;

/// What stands before the elements.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) dtype: Dtype,
    pub(crate) shape: Vec<usize>,
    /// Bytes before the first element.
    pub(crate) length: u64,
}

impl Header {
    /// Reads a header, and leaves the reader at the first element. A message in the error is meant for the user.
    pub(crate) fn read(reader: &mut dyn Read) -> io::Result<Self> {
        let mut start = [0; 8];
        reader.read_exact(&mut start)?;
        let (magic, version) = start.split_at(6);
        if magic != b"\x93NUMPY" {
            return Err(invalid("not an array in numpy's format"));
        }
        let mut length = [0; 4];
        let width = match version {
            [1, 0] => 2,
            [2 | 3, 0] => 4,
            _ => {
                return Err(invalid(format!(
                    "version {}.{} of numpy's format",
                    version[0], version[1]
                )));
            }
        };
        reader.read_exact(&mut length[..width])?;
        let length = u32::from_le_bytes(length);
        if length > MAX_HEADER_BYTES {
            return Err(invalid(format!("a header of {length} bytes")));
        }
        let mut text = vec![0; length as usize];
        reader.read_exact(&mut text)?;
        let text = str::from_utf8(&text).map_err(|_| invalid("a header that is not UTF-8"))?;
        let (dtype, shape) = Dictionary { rest: text }.read().map_err(invalid)?;
        Ok(Self { dtype, shape, length: 8 + width as u64 + u64::from(length) })
    }

    /// Bytes of the elements; `None` where that is no number.
    pub(crate) fn data_bytes(&self) -> Option<usize> {
        self.shape.iter().try_fold(self.dtype.bytes(), |bytes, &axis| bytes.checked_mul(axis))
    }

    /// Encodes a header whose length makes the elements start at a multiple of 64 bytes.
    pub(crate) fn write(dtype: Dtype, shape: &[usize]) -> Vec<u8> {
        let axes = shape.iter().map(|it| it.to_string() + ",").collect::<String>();
        let descr = descr(dtype);
        let text = format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': ({axes}), }}");
        let length = (10 + text.len() + 1).next_multiple_of(64) - 10;
        let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
        // 65,535 bytes hold the 3,000 axes that nobody has; numpy itself stops at 64.
        bytes.extend((length as u16).to_le_bytes());
        bytes.extend(text.bytes());
        bytes.resize(10 + length - 1, b' ');
        bytes.push(b'\n');
        bytes
    }
}

fn invalid(message: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, message.into())
}

fn descr(dtype: Dtype) -> &'static str {
    match dtype {
        Dtype::F32 => "<f4",
        Dtype::F64 => "<f8",
        Dtype::I64 => "<i8",
        Dtype::I32 => "<i4",
        Dtype::I16 => "<i2",
        Dtype::I8 => "|i1",
        Dtype::U64 => "<u8",
        Dtype::U32 => "<u4",
        Dtype::U16 => "<u2",
        Dtype::U8 => "|u1",
        Dtype::Bool => "|b1",
    }
}

fn dtype(descr: &str) -> Result<Dtype, String> {
    const ALL: [Dtype; 11] = [
        Dtype::F32,
        Dtype::F64,
        Dtype::I64,
        Dtype::I32,
        Dtype::I16,
        Dtype::I8,
        Dtype::U64,
        Dtype::U32,
        Dtype::U16,
        Dtype::U8,
        Dtype::Bool,
    ];
    ALL.into_iter().find(|&it| self::descr(it) == descr).ok_or_else(|| {
        let names = ALL.map(Dtype::name).join(", ");
        format!("elements of type '{descr}', expected little-endian {names}; convert with `astype`")
    })
}

/// A Python dictionary with the three keys of a header.
struct Dictionary<'a> {
    rest: &'a str,
}

impl<'a> Dictionary<'a> {
    fn read(mut self) -> Result<(Dtype, Vec<usize>), String> {
        let (mut descr, mut fortran, mut shape) = (None, None, None);
        self.expect("{")?;
        while !self.accept("}") {
            let key = self.string()?;
            self.expect(":")?;
            match key {
                "descr" => descr = Some(self.dtype()?),
                "fortran_order" => fortran = Some(self.boolean()?),
                "shape" => shape = Some(self.axes()?),
                _ => return Err(format!("a header with the unknown key '{key}'")),
            }
            if !self.accept(",") {
                self.expect("}")?;
                break;
            }
        }
        let (Some(dtype), Some(fortran), Some(shape)) = (descr, fortran, shape) else {
            return Err("a header without 'descr', 'fortran_order' or 'shape'".to_owned());
        };
        if fortran && shape.len() > 1 {
            return Err(
                "stored column by column; save it through `np.ascontiguousarray`".to_owned()
            );
        }
        Ok((dtype, shape))
    }

    fn dtype(&mut self) -> Result<Dtype, String> {
        if self.accept("[") {
            return Err("elements that are structures; save each field as an array".to_owned());
        }
        dtype(self.string()?)
    }

    fn accept(&mut self, token: &str) -> bool {
        self.rest = self.rest.trim_ascii_start();
        match self.rest.strip_prefix(token) {
            Some(rest) => {
                self.rest = rest;
                true
            }
            None => false,
        }
    }

    fn expect(&mut self, token: &str) -> Result<(), String> {
        if self.accept(token) {
            return Ok(());
        }
        let found: String = self.rest.chars().take(12).collect();
        Err(format!("a header with `{found}` where `{token}` was expected"))
    }

    fn string(&mut self) -> Result<&'a str, String> {
        let quote = if self.accept("\"") {
            '"'
        } else {
            self.expect("'")?;
            '\''
        };
        let (string, rest) = self.rest.split_once(quote).ok_or("a header with an open string")?;
        self.rest = rest;
        Ok(string)
    }

    fn boolean(&mut self) -> Result<bool, String> {
        if self.accept("True") {
            return Ok(true);
        }
        self.expect("False").map(|()| false)
    }

    fn axes(&mut self) -> Result<Vec<usize>, String> {
        self.expect("(")?;
        let mut axes = Vec::new();
        while !self.accept(")") {
            self.rest = self.rest.trim_ascii_start();
            let end = self.rest.find(|it: char| !it.is_ascii_digit()).unwrap_or(self.rest.len());
            let (digits, rest) = self.rest.split_at(end);
            axes.push(digits.parse().map_err(|_| format!("a header with the axis `{digits}`"))?);
            self.rest = rest;
            if !self.accept(",") {
                self.expect(")")?;
                break;
            }
        }
        Ok(axes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(text: &str) -> Result<Header, String> {
        let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
        bytes.extend((text.len() as u16).to_le_bytes());
        bytes.extend(text.bytes());
        Header::read(&mut &bytes[..]).map_err(|it| it.to_string())
    }

    #[test]
    fn headers_are_read() {
        let cases: [(&str, Dtype, &[usize]); 4] = [
            (
                "{'descr': '<f4', 'fortran_order': False, 'shape': (3, 4), }  \n",
                Dtype::F32,
                &[3, 4],
            ),
            ("{'descr': '|u1', 'fortran_order': False, 'shape': (), }\n", Dtype::U8, &[]),
            ("{'shape': (7,), 'fortran_order': True, 'descr': '<i8'}", Dtype::I64, &[7]),
            ("{\"descr\":\"|b1\",\"fortran_order\":False,\"shape\":(0,2)}", Dtype::Bool, &[0, 2]),
        ];
        for (text, dtype, shape) in cases {
            let header = header(text).unwrap();
            assert_eq!((header.dtype, &header.shape[..]), (dtype, shape), "{text}");
            assert_eq!(header.length, 10 + text.len() as u64);
        }
    }

    #[test]
    fn wrong_headers_are_refused() {
        let cases = [
            ("", "a header with `` where `{` was expected"),
            ("{'descr': '<f4'}", "a header without 'descr', 'fortran_order' or 'shape'"),
            ("{'descr': [('a', '<f4')]}", "elements that are structures"),
            ("{'descr': '>f4'}", "elements of type '>f4', expected little-endian float32"),
            ("{'shape': (-1,)}", "a header with the axis ``"),
            ("{'shape': (99999999999999999999,)}", "a header with the axis `99999999999999999999`"),
            ("{'shape': ((((((", "a header with the axis ``"),
            ("{'descr': '<f4", "a header with an open string"),
            ("{'x': 1}", "a header with the unknown key 'x'"),
            ("{'descr': '<f4', 'fortran_order': True, 'shape': (2, 2)}", "stored column by column"),
        ];
        for (text, message) in cases {
            let error = header(text).unwrap_err();
            assert!(error.starts_with(message), "`{error}` for {text}");
        }
        let huge = Header { dtype: Dtype::F64, shape: vec![usize::MAX, 2], length: 0 };
        assert_eq!(huge.data_bytes(), None);
    }

    #[test]
    fn written_headers_are_aligned_and_read_back() {
        for shape in [vec![], vec![5], vec![128, 3, 224, 224]] {
            let bytes = Header::write(Dtype::I32, &shape);
            assert_eq!(bytes.len() % 64, 0);
            let header = Header::read(&mut &bytes[..]).unwrap();
            assert_eq!(header, Header { dtype: Dtype::I32, shape, length: bytes.len() as u64 });
        }
    }
}
