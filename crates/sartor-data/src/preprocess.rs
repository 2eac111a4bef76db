//! From the pixels of one image to what the network takes.

use image::{
    DynamicImage, GrayImage, RgbImage,
    imageops::{self, FilterType},
};
use serde::Deserialize;

/// Where the channels of an input are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Layout {
    /// `[n, channels, height, width]`.
    #[default]
    Nchw,
    /// `[n, height, width, channels]`.
    Nhwc,
}

/// The channels of an image and their order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Channels {
    /// Red, green, blue.
    Rgb,
    /// Blue, green, red.
    Bgr,
    /// One channel, luma: `(19595 R + 38470 G + 7471 B + 32768) >> 16`, the weights of ITU-R BT.601.
    Gray,
}

impl Channels {
    /// How many there are.
    pub fn count(self) -> usize {
        match self {
            Self::Rgb | Self::Bgr => 3,
            Self::Gray => 1,
        }
    }
}

/// How an image is resampled.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ResizeMode {
    /// A triangle filter, widened when an image shrinks.
    #[default]
    Bilinear,
    /// The pixel that the centre of the new one falls into: row `floor((y + 1/2) height / new height)`.
    Nearest,
}

/// How an image of other proportions is fitted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Fit {
    /// Both sides to the size asked for.
    #[default]
    Stretch,
    /// Proportions are kept and the size covered; what stands over is rounded down and cut off by the centre crop.
    ShorterSide,
}

/// A change of size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Resize {
    /// Height and width in pixels.
    pub size: [usize; 2],
    /// How pixels are resampled.
    pub mode: ResizeMode,
    /// What happens to other proportions.
    pub fit: Fit,
}

/// What is done to the samples for one input of a network; the default changes nothing but the layout.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct InputSpec {
    /// Where the channels go.
    pub layout: Layout,
    /// `None` keeps the channels of the source.
    pub channels: Option<Channels>,
    /// First change of size.
    pub resize: Option<Resize>,
    /// Centre crop to height and width, after `resize`. An odd remainder is halved to the nearest even offset.
    pub crop: Option<[usize; 2]>,
    /// Pixels are divided by this first.
    pub divide: Option<f32>,
    /// Subtracted next: one a channel, one for all, or none.
    pub mean: Vec<f32>,
    /// Divided by last: one a channel, one for all, or none.
    pub std: Vec<f32>,
    /// Element type of the input; `None` is `float32` for images.
    pub dtype: Option<crate::Dtype>,
}

impl InputSpec {
    /// Whether pixel values change, and with it their type to `float32`.
    pub(crate) fn normalises(&self) -> bool {
        self.divide.is_some() || !self.mean.is_empty() || !self.std.is_empty()
    }

    /// `(x / divide - mean) / std`, every step rounded to float32; absent steps are left out.
    pub(crate) fn normalise(&self, x: f32, channel: usize) -> f32 {
        let of = |values: &[f32]| values.get(channel).or(values.first()).copied();
        let x = self.divide.map_or(x, |divide| x / divide);
        let x = of(&self.mean).map_or(x, |mean| x - mean);
        of(&self.std).map_or(x, |std| x / std)
    }

    /// Whether `mean` and `std` fit the number of channels; the message says which does not.
    pub(crate) fn check_channels(&self, channels: usize) -> Result<(), String> {
        for (key, values) in [("mean", &self.mean), ("std", &self.std)] {
            if values.len() > 1 && values.len() != channels {
                let found = values.len();
                return Err(format!(
                    "`{key}` has {found} values for {channels} channels, expected {channels} or one"
                ));
            }
        }
        Ok(())
    }
}

/// Pixels of one image, `[height, width, channels]` row by row, one channel or RGB.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Image {
    pub(crate) height: usize,
    pub(crate) width: usize,
    pub(crate) channels: usize,
    pub(crate) pixels: Vec<u8>,
}

impl Image {
    /// Takes over a decoded picture: alpha is dropped, 16 bits become 8, grey becomes RGB.
    pub(crate) fn from_picture(picture: DynamicImage) -> Self {
        Self::from_rgb(picture.into_rgb8())
    }

    fn from_rgb(it: RgbImage) -> Self {
        Self {
            height: it.height() as usize,
            width: it.width() as usize,
            channels: 3,
            pixels: it.into_raw(),
        }
    }

    fn with_channels(self, channels: Channels) -> Self {
        let pixels = match (channels, self.channels) {
            (Channels::Rgb, 3) | (Channels::Gray, 1) => return self,
            (Channels::Gray, _) => self.pixels.as_chunks().0.iter().map(|&it| luma(it)).collect(),
            (Channels::Bgr, 3) => {
                self.pixels.as_chunks().0.iter().flat_map(|&[r, g, b]| [b, g, r]).collect()
            }
            (Channels::Rgb | Channels::Bgr, _) => {
                self.pixels.iter().flat_map(|&it| [it; 3]).collect()
            }
        };
        Self { channels: channels.count(), pixels, ..self }
    }

    fn resized(self, resize: Resize) -> Result<Self, String> {
        let [height, width] = resize.covering(self.height, self.width);
        if [height, width] == [self.height, self.width] {
            return Ok(self);
        }
        if resize.mode == ResizeMode::Nearest {
            return Ok(self.nearest(height, width));
        }
        let side = |it: usize| {
            u32::try_from(it).map_err(|_| format!("an image side of {it} pixels is too long"))
        };
        let (old_h, old_w, h, w) =
            (side(self.height)?, side(self.width)?, side(height)?, side(width)?);
        let pixels = if self.channels == 1 {
            GrayImage::from_raw(old_w, old_h, self.pixels)
                .map(|it| imageops::resize(&it, w, h, FilterType::Triangle).into_raw())
        } else {
            RgbImage::from_raw(old_w, old_h, self.pixels)
                .map(|it| imageops::resize(&it, w, h, FilterType::Triangle).into_raw())
        };
        let pixels = pixels.ok_or("fewer pixels than height times width")?;
        Ok(Self { height, width, channels: self.channels, pixels })
    }

    fn nearest(self, height: usize, width: usize) -> Self {
        let from = |to: usize, old: usize, new: usize| (2 * to + 1) * old / (2 * new);
        let mut pixels = Vec::with_capacity(height * width * self.channels);
        for y in 0..height {
            let row = from(y, self.height, height) * self.width;
            for x in 0..width {
                let at = (row + from(x, self.width, width)) * self.channels;
                pixels.extend(&self.pixels[at..at + self.channels]);
            }
        }
        Self { height, width, channels: self.channels, pixels }
    }

    fn cropped(self, [height, width]: [usize; 2]) -> Result<Self, String> {
        if height > self.height || width > self.width {
            let (h, w) = (self.height, self.width);
            return Err(format!(
                "{h} x {w} pixels, cannot crop to {height} x {width}; add `resize`"
            ));
        }
        let offset = |from: usize, to: usize| ((from - to) as f64 / 2.0).round_ties_even() as usize;
        let (top, left) = (offset(self.height, height), offset(self.width, width));
        let row = |y: usize| {
            &self.pixels[(y * self.width + left) * self.channels..][..width * self.channels]
        };
        let pixels = (top..top + height).flat_map(row).copied().collect();
        Ok(Self { height, width, channels: self.channels, pixels })
    }
}

fn luma([r, g, b]: [u8; 3]) -> u8 {
    ((19595 * u32::from(r) + 38470 * u32::from(g) + 7471 * u32::from(b) + 32768) >> 16) as u8
}

impl Resize {
    /// The size after resampling, before any crop.
    fn covering(self, height: usize, width: usize) -> [usize; 2] {
        let [h, w] = self.size;
        match self.fit {
            Fit::Stretch => [h, w],
            Fit::ShorterSide if h * width >= w * height => {
                [h, h * width / height.max(1)].map(|it| it.max(1))
            }
            Fit::ShorterSide => [w * height / width.max(1), w].map(|it| it.max(1)),
        }
    }
}

/// An [`InputSpec`] made ready for images: what every pixel value becomes stands in a table.
#[derive(Clone, Debug)]
pub(crate) struct Preprocess {
    spec: InputSpec,
    /// One table a channel.
    tables: Vec<[f32; 256]>,
}

impl Preprocess {
    /// For images that come with `native` channels.
    pub(crate) fn new(spec: InputSpec, native: Channels) -> Result<Self, String> {
        let channels = spec.channels.unwrap_or(native).count();
        spec.check_channels(channels)?;
        let table = |channel| std::array::from_fn(|pixel| spec.normalise(pixel as f32, channel));
        let tables = (0..channels).map(table).collect();
        let spec = InputSpec { channels: Some(spec.channels.unwrap_or(native)), ..spec };
        Ok(Self { spec, tables })
    }

    /// What is applied.
    pub(crate) fn spec(&self) -> &InputSpec {
        &self.spec
    }

    /// Channels, resize and crop; `[height, width]` of the answer is what [`Preprocess::shape`] takes.
    pub(crate) fn arrange(&self, image: Image) -> Result<Image, String> {
        if image.pixels.is_empty() {
            return Err("an image without pixels".to_owned());
        }
        let image = match self.spec.channels {
            Some(channels) => image.with_channels(channels),
            None => image,
        };
        let resize = self.spec.resize;
        let covers = resize.filter(|it| it.fit == Fit::ShorterSide).map(|it| it.size);
        let image = match resize {
            Some(resize) => image.resized(resize)?,
            None => image,
        };
        match self.spec.crop.or(covers) {
            Some(crop) => image.cropped(crop),
            None => Ok(image),
        }
    }

    /// The shape of one sample, without the batch.
    pub(crate) fn shape(&self, arranged: &Image) -> [usize; 3] {
        let Image { height, width, channels, .. } = *arranged;
        match self.spec.layout {
            Layout::Nchw => [channels, height, width],
            Layout::Nhwc => [height, width, channels],
        }
    }

    /// Writes the values of an arranged image, as many as its shape says.
    pub(crate) fn write(&self, arranged: &Image, out: &mut [f32]) {
        let channels = arranged.channels;
        let pixels = arranged.pixels.chunks_exact(channels);
        match self.spec.layout {
            Layout::Nhwc => {
                for (out, pixel) in out.chunks_exact_mut(channels).zip(pixels) {
                    for ((out, &value), table) in out.iter_mut().zip(pixel).zip(&self.tables) {
                        *out = table[usize::from(value)];
                    }
                }
            }
            Layout::Nchw => {
                let plane = (arranged.height * arranged.width).max(1);
                for (channel, (out, table)) in
                    out.chunks_exact_mut(plane).zip(&self.tables).enumerate()
                {
                    for (out, pixel) in out.iter_mut().zip(pixels.clone()) {
                        *out = table[usize::from(pixel[channel])];
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image(height: usize, width: usize, channels: usize) -> Image {
        let pixels = (0..height * width * channels).map(|it| (it * 7 % 256) as u8).collect();
        Image { height, width, channels, pixels }
    }

    fn values(spec: InputSpec, native: Channels, image: Image) -> (Vec<f32>, [usize; 3]) {
        let pre = Preprocess::new(spec, native).unwrap();
        let arranged = pre.arrange(image).unwrap();
        let shape = pre.shape(&arranged);
        let mut out = vec![f32::NAN; shape.iter().product()];
        pre.write(&arranged, &mut out);
        (out, shape)
    }

    #[test]
    fn layouts_place_the_same_values() {
        let spec = |layout| InputSpec { layout, ..InputSpec::default() };
        let (nhwc, shape) = values(spec(Layout::Nhwc), Channels::Rgb, image(2, 3, 3));
        assert_eq!(shape, [2, 3, 3]);
        assert_eq!(nhwc[..4], [0.0, 7.0, 14.0, 21.0]);
        let (nchw, shape) = values(spec(Layout::Nchw), Channels::Rgb, image(2, 3, 3));
        assert_eq!(shape, [3, 2, 3]);
        for c in 0..3 {
            for at in 0..6 {
                assert_eq!(nchw[c * 6 + at].to_bits(), nhwc[at * 3 + c].to_bits());
            }
        }
    }

    #[test]
    fn steps_are_rounded_in_the_documented_order() {
        let spec = InputSpec {
            divide: Some(255.0),
            mean: vec![0.485, 0.456, 0.406],
            std: vec![0.229, 0.224, 0.225],
            layout: Layout::Nhwc,
            ..InputSpec::default()
        };
        let pixels = vec![1, 128, 254];
        let (out, _) =
            values(spec, Channels::Rgb, Image { height: 1, width: 1, channels: 3, pixels });
        let expected = [
            (1.0_f32 / 255.0 - 0.485) / 0.229,
            (128.0_f32 / 255.0 - 0.456) / 0.224,
            (254.0_f32 / 255.0 - 0.406) / 0.225,
        ];
        assert_eq!(
            out.iter().map(|it| it.to_bits()).collect::<Vec<_>>(),
            expected.map(f32::to_bits)
        );
    }

    #[test]
    fn channels_convert() {
        let pixel = |pixels: &[u8]| Image {
            height: 1,
            width: 1,
            channels: pixels.len(),
            pixels: pixels.to_vec(),
        };
        let cases = [
            (Channels::Bgr, pixel(&[10, 20, 30]), vec![30, 20, 10]),
            (Channels::Rgb, pixel(&[9]), vec![9, 9, 9]),
            (Channels::Gray, pixel(&[255, 0, 0]), vec![76]),
            (Channels::Gray, pixel(&[255, 255, 255]), vec![255]),
        ];
        for (channels, image, expected) in cases {
            assert_eq!(image.with_channels(channels).pixels, expected, "{channels:?}");
        }
    }

    #[test]
    fn sizes_of_resize_and_crop() {
        let resize = |size, fit| Resize { size, mode: ResizeMode::Bilinear, fit };
        let cases = [
            (resize([8, 6], Fit::Stretch), None, (5, 9), [8, 6]),
            (resize([8, 8], Fit::ShorterSide), None, (16, 33), [8, 8]),
            (resize([8, 8], Fit::ShorterSide), Some([7, 5]), (33, 16), [7, 5]),
        ];
        for (resize, crop, (h, w), expected) in cases {
            let spec = InputSpec { resize: Some(resize), crop, ..InputSpec::default() };
            let (_, shape) = values(spec, Channels::Gray, image(h, w, 1));
            assert_eq!(shape, [1, expected[0], expected[1]]);
        }
        assert_eq!(resize([8, 8], Fit::ShorterSide).covering(16, 33), [8, 16]);
        let pixels = vec![10, 20, 30];
        let nearest = Image { height: 1, width: 3, channels: 1, pixels }.nearest(2, 4).pixels;
        assert_eq!(nearest, [10, 20, 20, 30, 10, 20, 20, 30]);
        let cropped = image(5, 4, 1).cropped([2, 2]).unwrap();
        // Half of 3 rows is 1.5, to the nearest even number 2; half of 2 columns is 1.
        assert_eq!(cropped.pixels, [63, 70, 91, 98]);
        assert_eq!(
            image(5, 4, 1).cropped([6, 2]).unwrap_err(),
            "5 x 4 pixels, cannot crop to 6 x 2; add `resize`"
        );
    }

    #[test]
    fn means_must_fit_the_channels() {
        let spec = InputSpec { mean: vec![0.5; 3], ..InputSpec::default() };
        let error = Preprocess::new(spec, Channels::Gray).unwrap_err();
        assert_eq!(error, "`mean` has 3 values for 1 channels, expected 1 or one");
    }
}
