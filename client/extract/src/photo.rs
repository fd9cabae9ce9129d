//! From the bytes of a file to an upright picture: JPEG, PNG or WebP, whatever the file is called.
//!
//! A photo comes from anybody, so nothing is believed: the size of the file is bounded before it is read, the size that
//! its header claims before a pixel is allocated. Pixels are wiped on drop; what the decoders of the crate `image` keep
//! while they work is not.

use std::fs::File;
use std::io::{Cursor, Read};
use std::path::{Path, PathBuf};

use image::codecs::jpeg::JpegDecoder;
use image::codecs::png::PngDecoder;
use image::codecs::webp::WebPDecoder;
use image::metadata::Orientation;
use image::{ColorType, ImageDecoder, ImageFormat};
use zeroize::Zeroizing;

/// What a photo may cost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of the file.
    pub bytes: u64,
    /// Pixels of width or height.
    pub side: u32,
    /// Pixels in all.
    pub pixels: u64,
    /// Bytes that a decoder may allocate.
    pub memory: u64,
}

impl Default for Limits {
    /// Enough for the largest photo of a telephone (200 megapixels come as 50 unless somebody insists), and a quarter of
    /// what a small server has: 64 MiB, 16,384 pixels a side, 80 megapixels, 768 MiB.
    fn default() -> Self {
        Self { bytes: 64 << 20, side: 16_384, pixels: 80_000_000, memory: 768 << 20 }
    }
}

/// Why a file is not a picture that can be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PhotoError {
    /// The file cannot be read.
    #[error("{}: {message}", file.display())]
    Read {
        /// The file.
        file: PathBuf,
        /// The system's words.
        message: String,
    },
    /// More bytes than [`Limits::bytes`].
    #[error("the file has more than {} MiB", most >> 20)]
    Bytes {
        /// The limit.
        most: u64,
    },
    /// Neither JPEG nor PNG nor WebP, judged by its first bytes.
    #[error("the file is neither JPEG nor PNG nor WebP")]
    Format,
    /// More pixels than the limits allow.
    #[error("the picture claims {width} x {height} pixels; at most {} a side and {} megapixels in all are read",
        limits.side, limits.pixels / 1_000_000)]
    Size {
        /// Its width.
        width: u32,
        /// Its height.
        height: u32,
        /// The limits.
        limits: Limits,
    },
    /// The decoder would need more memory than [`Limits::memory`].
    #[error("decoding the picture would take more than {} MiB", most >> 20)]
    Memory {
        /// The limit.
        most: u64,
    },
    /// The file is damaged, cut off, or uses what the decoder does not know.
    #[error("the picture is damaged: {message}")]
    Damaged {
        /// The decoder's words.
        message: String,
    },
}

/// An upright picture of three bytes a pixel, red first, row after row. Wiped on drop; no `Debug`.
pub struct Picture {
    width: usize,
    height: usize,
    pixels: Zeroizing<Vec<u8>>,
}

impl Picture {
    /// A black picture.
    #[must_use]
    pub fn black(width: usize, height: usize) -> Self {
        Self { width, height, pixels: Zeroizing::new(vec![0; width * height * 3]) }
    }

    /// Columns.
    #[must_use]
    pub const fn width(&self) -> usize {
        self.width
    }

    /// Rows.
    #[must_use]
    pub const fn height(&self) -> usize {
        self.height
    }

    /// All bytes.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.pixels
    }

    /// The pixel in this column and row; black outside the picture.
    #[must_use]
    pub fn pixel(&self, x: usize, y: usize) -> [u8; 3] {
        if x >= self.width {
            return [0; 3];
        }
        let at = (y * self.width + x) * 3;
        self.pixels.get(at..at + 3).and_then(|three| three.try_into().ok()).unwrap_or([0; 3])
    }

    /// Sets a pixel; outside the picture nothing happens.
    pub fn set(&mut self, x: usize, y: usize, colour: [u8; 3]) {
        if x >= self.width {
            return;
        }
        let at = (y * self.width + x) * 3;
        if let Some(pixel) = self.pixels.get_mut(at..at + 3) {
            pixel.copy_from_slice(&colour);
        }
    }

    /// All bytes of one row; empty outside the picture.
    #[must_use]
    pub fn row(&self, y: usize) -> &[u8] {
        self.pixels.get(y * self.width * 3..(y + 1) * self.width * 3).unwrap_or_default()
    }

    /// A deliberate second copy.
    #[must_use]
    pub fn duplicate(&self) -> Self {
        Self { width: self.width, height: self.height, pixels: self.pixels.clone() }
    }

    /// Mirrored left to right.
    #[must_use]
    pub fn mirrored(&self) -> Self {
        self.arranged(self.width, self.height, |x, y| (self.width - 1 - x, y))
    }

    /// Turned clockwise by this many quarters.
    #[must_use]
    pub fn turned(&self, quarters: u8) -> Self {
        let (width, height) = (self.width, self.height);
        match quarters % 4 {
            1 => self.arranged(height, width, |x, y| (y, height - 1 - x)),
            2 => self.arranged(width, height, |x, y| (width - 1 - x, height - 1 - y)),
            3 => self.arranged(height, width, |x, y| (width - 1 - y, x)),
            _ => self.duplicate(),
        }
    }

    /// A picture whose pixel (x, y) is this one's pixel `source(x, y)`.
    fn arranged(&self, width: usize, height: usize, source: impl Fn(usize, usize) -> (usize, usize)) -> Self {
        let mut picture = Self::black(width, height);
        for y in 0..height {
            for x in 0..width {
                let (from_x, from_y) = source(x, y);
                picture.set(x, y, self.pixel(from_x, from_y));
            }
        }
        picture
    }

    /// The picture as a PNG file.
    ///
    /// # Errors
    /// [`PhotoError::Damaged`] if it has no pixels.
    pub fn png(&self) -> Result<Zeroizing<Vec<u8>>, PhotoError> {
        use image::ImageEncoder;
        let mut bytes = Zeroizing::new(Vec::new());
        image::codecs::png::PngEncoder::new(&mut *bytes)
            .write_image(&self.pixels, self.width as u32, self.height as u32, image::ExtendedColorType::Rgb8)
            .map_err(|error| PhotoError::Damaged { message: error.to_string() })?;
        Ok(bytes)
    }

    /// Reads a file.
    ///
    /// # Errors
    /// [`PhotoError`].
    pub fn read(file: &Path, limits: &Limits) -> Result<Self, PhotoError> {
        let failed = |error: std::io::Error| PhotoError::Read { file: file.to_path_buf(), message: error.to_string() };
        let opened = File::open(file).map_err(failed)?;
        let length = opened.metadata().map_err(failed)?.len();
        if length > limits.bytes {
            return Err(PhotoError::Bytes { most: limits.bytes });
        }
        // The whole size at once: a vector that grows leaves pieces of the photo behind it, unwiped. A file that grows
        // while it is read, or a pipe, ends at the limit.
        let mut bytes = Zeroizing::new(Vec::with_capacity(length as usize + 1));
        opened.take(limits.bytes.saturating_add(1)).read_to_end(&mut bytes).map_err(failed)?;
        Self::decode(&bytes, limits)
    }

    /// Decodes the bytes of a file; the orientation that its EXIF block names is applied, transparent parts become white.
    ///
    /// # Errors
    /// [`PhotoError`].
    pub fn decode(bytes: &[u8], limits: &Limits) -> Result<Self, PhotoError> {
        if bytes.len() as u64 > limits.bytes {
            return Err(PhotoError::Bytes { most: limits.bytes });
        }
        let source = Cursor::new(bytes);
        let format = image::guess_format(bytes).map_err(|_| PhotoError::Format)?;
        match format {
            ImageFormat::Jpeg => JpegDecoder::new(source).map_err(damaged).and_then(|it| decoded(it, limits)),
            ImageFormat::Png => PngDecoder::with_limits(source, of_the_crate(limits))
                .map_err(damaged)
                .and_then(|it| decoded(it, limits)),
            ImageFormat::WebP => WebPDecoder::new(source).map_err(damaged).and_then(|it| decoded(it, limits)),
            _ => Err(PhotoError::Format),
        }
    }
}

fn damaged(error: image::ImageError) -> PhotoError {
    match error {
        image::ImageError::Limits(_) => PhotoError::Damaged { message: "it needs more memory than is allowed".into() },
        error => PhotoError::Damaged { message: error.to_string() },
    }
}

fn of_the_crate(limits: &Limits) -> image::Limits {
    let mut theirs = image::Limits::default();
    theirs.max_image_width = Some(limits.side);
    theirs.max_image_height = Some(limits.side);
    theirs.max_alloc = Some(limits.memory);
    theirs
}

fn decoded(mut decoder: impl ImageDecoder, limits: &Limits) -> Result<Picture, PhotoError> {
    let (width, height) = decoder.dimensions();
    if width == 0 || height == 0 {
        return Err(PhotoError::Damaged { message: "it has no pixels".into() });
    }
    if width > limits.side || height > limits.side || u64::from(width) * u64::from(height) > limits.pixels {
        return Err(PhotoError::Size { width, height, limits: *limits });
    }
    let (kind, total) = (decoder.color_type(), decoder.total_bytes());
    // What is allocated here comes on top of what the decoder allocates.
    if total > limits.memory {
        return Err(PhotoError::Memory { most: limits.memory });
    }
    decoder.set_limits(of_the_crate(limits)).map_err(|_| PhotoError::Memory { most: limits.memory })?;
    // A damaged EXIF block is no reason to refuse the picture.
    let orientation = decoder.orientation().unwrap_or(Orientation::NoTransforms);
    let mut raw = Zeroizing::new(vec![0; total as usize]);
    decoder.read_image(&mut raw).map_err(damaged)?;
    let (width, height) = (width as usize, height as usize);
    Ok(upright(coloured(kind, width, height, raw)?, orientation))
}

/// Three bytes a pixel from whatever the decoder gives.
fn coloured(kind: ColorType, width: usize, height: usize, raw: Zeroizing<Vec<u8>>) -> Result<Picture, PhotoError> {
    if kind == ColorType::Rgb8 {
        return Ok(Picture { width, height, pixels: raw });
    }
    // Sixteen bits are in the machine's byte order; eight of them are enough.
    let high = |two: &[u8]| two.try_into().map_or(0, |two| (u16::from_ne_bytes(two) >> 8) as u8);
    let channel = |pixel: &[u8], wide: bool, number: usize| {
        if wide {
            pixel.get(number * 2..number * 2 + 2).map_or(0, high)
        } else {
            pixel.get(number).copied().unwrap_or(0)
        }
    };
    let (wide, grey, alpha) = match kind {
        ColorType::L8 => (false, true, false),
        ColorType::La8 => (false, true, true),
        ColorType::Rgba8 => (false, false, true),
        ColorType::L16 => (true, true, false),
        ColorType::La16 => (true, true, true),
        ColorType::Rgb16 => (true, false, false),
        ColorType::Rgba16 => (true, false, true),
        other => return Err(PhotoError::Damaged { message: format!("pixels of kind {other:?} are not read") }),
    };
    let colours = if grey { 1 } else { 3 };
    let mut picture = Picture::black(width, height);
    let stride = usize::from(kind.bytes_per_pixel());
    for (pixel, out) in raw.chunks_exact(stride).zip(picture.pixels.chunks_exact_mut(3)) {
        let opaque = if alpha { u16::from(channel(pixel, wide, colours)) } else { 255 };
        for (number, out) in out.iter_mut().enumerate() {
            let value = u16::from(channel(pixel, wide, if grey { 0 } else { number }));
            *out = ((value * opaque + 255 * (255 - opaque) + 127) / 255) as u8;
        }
    }
    Ok(picture)
}

fn upright(picture: Picture, orientation: Orientation) -> Picture {
    match orientation {
        Orientation::NoTransforms => picture,
        Orientation::Rotate90 => picture.turned(1),
        Orientation::Rotate180 => picture.turned(2),
        Orientation::Rotate270 => picture.turned(3),
        Orientation::FlipHorizontal => picture.mirrored(),
        Orientation::FlipVertical => picture.mirrored().turned(2),
        Orientation::Rotate90FlipH => picture.turned(1).mirrored(),
        Orientation::Rotate270FlipH => picture.turned(3).mirrored(),
    }
}

#[cfg(test)]
#[path = "photo/tests.rs"]
mod tests;
