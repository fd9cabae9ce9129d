//! Hostile and unusual files.

use super::*;
use image::{ExtendedColorType, ImageEncoder};
use proptest::prelude::*;

const WIDTH: usize = 48;
const HEIGHT: usize = 32;

/// A picture that is like none of its turned or mirrored copies: red grows to the right, green downwards.
fn picture() -> Picture {
    let mut picture = Picture::black(WIDTH, HEIGHT);
    for y in 0..HEIGHT {
        for x in 0..WIDTH {
            picture.set(x, y, [(x * 5) as u8, (y * 7) as u8, 90]);
        }
    }
    picture
}

fn png(bytes: &[u8], width: usize, height: usize, kind: ExtendedColorType) -> Vec<u8> {
    let mut file = Vec::new();
    let encoder = image::codecs::png::PngEncoder::new(&mut file);
    encoder.write_image(bytes, width as u32, height as u32, kind).unwrap();
    file
}

fn jpeg(picture: &Picture) -> Vec<u8> {
    let mut file = Vec::new();
    let mut encoder = jpeg_encoder::Encoder::new(&mut file, 100);
    encoder.set_sampling_factor(jpeg_encoder::SamplingFactor::F_1_1);
    let (width, height) = (picture.width() as u16, picture.height() as u16);
    encoder.encode(picture.bytes(), width, height, jpeg_encoder::ColorType::Rgb).unwrap();
    file
}

/// The JPEG with an EXIF block that says nothing but the orientation, after the first marker.
fn with_orientation(jpeg: &[u8], orientation: u16) -> Vec<u8> {
    let mut exif = b"Exif\0\0MM\0*\0\0\0\x08\0\x01".to_vec();
    // One entry: tag 0x0112, type 3 (16 bits), one value, padded to four bytes; then no further directory.
    exif.extend([0x01, 0x12, 0, 3, 0, 0, 0, 1]);
    exif.extend(orientation.to_be_bytes());
    exif.extend([0; 6]);
    let mut file = jpeg[..2].to_vec();
    file.extend([0xFF, 0xE1]);
    file.extend((exif.len() as u16 + 2).to_be_bytes());
    file.extend(exif);
    file.extend(&jpeg[2..]);
    file
}

fn decode(bytes: &[u8]) -> Result<Picture, PhotoError> {
    Picture::decode(bytes, &Limits::default())
}

fn refusal(bytes: &[u8], limits: &Limits) -> PhotoError {
    Picture::decode(bytes, limits).err().unwrap()
}

/// The largest difference of a channel.
fn difference(a: &Picture, b: &Picture) -> u8 {
    assert_eq!((a.width(), a.height()), (b.width(), b.height()));
    a.bytes().iter().zip(b.bytes()).map(|(a, b)| a.abs_diff(*b)).max().unwrap()
}

#[test]
fn the_eight_orientations_give_one_upright_picture() {
    let upright = picture();
    // How a camera that is held that way stores the upright scene.
    let stored = [
        upright.duplicate(),
        upright.mirrored(),
        upright.turned(2),
        upright.mirrored().turned(2),
        upright.mirrored().turned(3),
        upright.turned(3),
        upright.mirrored().turned(1),
        upright.turned(1),
    ];
    for (number, stored) in stored.iter().enumerate() {
        let file = with_orientation(&jpeg(stored), number as u16 + 1);
        let read = decode(&file).unwrap_or_else(|error| panic!("{error}"));
        assert!(difference(&read, &upright) <= 6, "orientation {}: off by {}", number + 1, difference(&read, &upright));
    }
    // No orientation that exists: the picture as it is.
    let read = decode(&with_orientation(&jpeg(&upright), 77)).unwrap_or_else(|error| panic!("{error}"));
    assert!(difference(&read, &upright) <= 6);
}

#[test]
fn turning_and_mirroring_move_pixels_where_they_belong() {
    let picture = picture();
    let right = picture.turned(1);
    assert_eq!((right.width(), right.height()), (HEIGHT, WIDTH));
    assert_eq!(right.pixel(HEIGHT - 1, 0), picture.pixel(0, 0));
    assert_eq!(right.pixel(0, 0), picture.pixel(0, HEIGHT - 1));
    assert_eq!(picture.turned(1).turned(3).bytes(), picture.bytes());
    assert_eq!(picture.turned(2).turned(2).bytes(), picture.bytes());
    assert_eq!(picture.mirrored().pixel(0, 5), picture.pixel(WIDTH - 1, 5));
    assert_eq!((picture.pixel(WIDTH, 0), picture.pixel(0, HEIGHT)), ([0; 3], [0; 3]));
}

#[test]
fn every_kind_of_pixel_becomes_red_green_and_blue() {
    let grey = [0_u8, 64, 128, 255];
    let wide = |values: &[u8]| values.iter().flat_map(|&v| (u16::from(v) * 257).to_ne_bytes()).collect::<Vec<u8>>();
    let black_and_white = |file: Vec<u8>| decode(&file).unwrap_or_else(|error| panic!("{error}")).bytes().to_vec();
    let expected: Vec<u8> = grey.iter().flat_map(|&value| [value; 3]).collect();
    assert_eq!(black_and_white(png(&grey, 4, 1, ExtendedColorType::L8)), expected);
    assert_eq!(black_and_white(png(&wide(&grey), 4, 1, ExtendedColorType::L16)), expected);
    let colours = [10, 20, 30, 200, 210, 220];
    assert_eq!(black_and_white(png(&wide(&colours), 2, 1, ExtendedColorType::Rgb16)), colours);
    // Transparent becomes white, half transparent half white.
    let clear = [10, 20, 30, 255, 10, 20, 30, 0, 0, 100, 200, 128];
    let expected = [10, 20, 30, 255, 255, 255, 127, 177, 227];
    assert_eq!(black_and_white(png(&clear, 3, 1, ExtendedColorType::Rgba8)), expected);
    assert_eq!(black_and_white(png(&wide(&clear), 3, 1, ExtendedColorType::Rgba16)), expected);
    assert_eq!(black_and_white(png(&[80, 255, 80, 0], 2, 1, ExtendedColorType::La8)), [80, 80, 80, 255, 255, 255]);
}

#[test]
fn cmyk_and_grey_jpegs_are_read() {
    let of = |values: &[u8], kind| {
        let mut file = Vec::new();
        jpeg_encoder::Encoder::new(&mut file, 100).encode(&values.repeat(64), 8, 8, kind).unwrap();
        let read = decode(&file).unwrap_or_else(|error| panic!("{error}"));
        read.pixel(4, 4)
    };
    let near = |found: [u8; 3], wanted: [u8; 3]| found.iter().zip(wanted).all(|(a, b)| a.abs_diff(b) <= 8);
    assert!(near(of(&[99], jpeg_encoder::ColorType::Luma), [99; 3]));
    // Pure cyan ink on white paper, and half black.
    let cyan = of(&[255, 0, 0, 0], jpeg_encoder::ColorType::Cmyk);
    assert!(near(cyan, [0, 255, 255]), "{cyan:?}");
    let grey = of(&[0, 0, 0, 128], jpeg_encoder::ColorType::Cmyk);
    assert!(near(grey, [127; 3]), "{grey:?}");
}

#[test]
fn the_format_is_that_of_the_bytes_not_of_the_name() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("photo.jpg");
    std::fs::write(&path, png(picture().bytes(), WIDTH, HEIGHT, ExtendedColorType::Rgb8)).unwrap();
    let read = Picture::read(&path, &Limits::default()).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(read.bytes(), picture().bytes());
    for (name, bytes) in
        [("text.jpg", &b"not a picture"[..]), ("empty.png", b""), ("gif.png", b"GIF89a\x01\0\x01\0\0\0\0")]
    {
        let path = folder.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        assert_eq!(Picture::read(&path, &Limits::default()).err(), Some(PhotoError::Format), "{name}");
    }
    let missing = Picture::read(&folder.path().join("missing.jpg"), &Limits::default()).err().unwrap();
    assert!(missing.to_string().contains("missing.jpg"), "{missing}");
}

#[test]
fn webp_is_read() {
    let mut file = Vec::new();
    let encoder = image::codecs::webp::WebPEncoder::new_lossless(&mut file);
    encoder.encode(picture().bytes(), WIDTH as u32, HEIGHT as u32, ExtendedColorType::Rgb8).unwrap();
    assert_eq!(decode(&file).unwrap_or_else(|error| panic!("{error}")).bytes(), picture().bytes());
}

#[test]
fn what_is_cut_off_is_damaged_and_never_a_panic() {
    let whole = [jpeg(&picture()), png(picture().bytes(), WIDTH, HEIGHT, ExtendedColorType::Rgb8)];
    for file in &whole {
        for length in 0..file.len() {
            // JPEG decoders fill in what is missing at the end; the picture then is grey below.
            if let Ok(read) = decode(&file[..length]) {
                assert_eq!((read.width(), read.height()), (WIDTH, HEIGHT));
            }
        }
        assert!(matches!(decode(&file[..file.len() / 4]), Err(PhotoError::Damaged { .. } | PhotoError::Format)));
    }
}

/// A PNG whose header claims a size and whose data is a few bytes.
fn bomb(width: u32, height: u32) -> Vec<u8> {
    let mut file = png(&[1, 2, 3], 1, 1, ExtendedColorType::Rgb8);
    file[16..20].copy_from_slice(&width.to_be_bytes());
    file[20..24].copy_from_slice(&height.to_be_bytes());
    let sum = crc(&file[12..29]);
    file[29..33].copy_from_slice(&sum.to_be_bytes());
    file
}

fn crc(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0_u32, |state, &byte| {
        (0..8).fold(
            state ^ u32::from(byte),
            |state, _| if state & 1 == 1 { state >> 1 ^ 0xEDB8_8320 } else { state >> 1 },
        )
    })
}

#[test]
fn bombs_are_refused_by_what_their_headers_claim() {
    let limits = Limits::default();
    // 60,000 pixels a side would take 10 GB.
    for (width, height) in [(60_000, 60_000), (60_000, 1), (16_000, 16_000)] {
        let said = refusal(&bomb(width, height), &limits);
        assert!(matches!(said, PhotoError::Size { .. } | PhotoError::Damaged { .. }), "{width} x {height}: {said}");
    }
    let said = refusal(&bomb(16_000, 16_000), &limits).to_string();
    assert_eq!(said, "the picture claims 16000 x 16000 pixels; at most 16384 a side and 80 megapixels in all are read");
    assert!(matches!(refusal(&bomb(0, 5), &limits), PhotoError::Damaged { .. }));
    // A JPEG that claims 65,500 x 65,500.
    let mut file = jpeg(&picture());
    let at = file.windows(2).position(|two| two == [0xFF, 0xC0]).unwrap() + 5;
    file[at..at + 4].copy_from_slice(&[0xFF, 0xDC, 0xFF, 0xDC]);
    assert!(matches!(refusal(&file, &limits), PhotoError::Size { width: 65_500, .. }));
}

#[test]
fn limits_are_kept() {
    let file = png(picture().bytes(), WIDTH, HEIGHT, ExtendedColorType::Rgb8);
    let limits = Limits { bytes: file.len() as u64 - 1, ..Limits::default() };
    assert_eq!(refusal(&file, &limits), PhotoError::Bytes { most: limits.bytes });
    let limits = Limits { memory: (WIDTH * HEIGHT * 3 - 1) as u64, ..Limits::default() };
    assert!(matches!(refusal(&file, &limits), PhotoError::Memory { .. } | PhotoError::Damaged { .. }));
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("large.png");
    std::fs::write(&path, &file).unwrap();
    let limits = Limits { bytes: 10, ..Limits::default() };
    assert_eq!(Picture::read(&path, &limits).err(), Some(PhotoError::Bytes { most: 10 }));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn changed_bytes_are_an_error_or_a_picture_within_the_limits(
        kind in 0..2_usize,
        changes in proptest::collection::vec((any::<proptest::sample::Index>(), any::<u8>()), 1..12),
    ) {
        let mut file = match kind {
            0 => with_orientation(&jpeg(&picture()), 6),
            _ => png(picture().bytes(), WIDTH, HEIGHT, ExtendedColorType::Rgb8),
        };
        for (index, value) in changes {
            let at = index.index(file.len());
            file[at] = value;
        }
        let limits = Limits { side: 4096, pixels: 1 << 20, memory: 16 << 20, ..Limits::default() };
        if let Ok(read) = Picture::decode(&file, &limits) {
            prop_assert!(read.width() <= 4096 && read.height() <= 4096);
            prop_assert_eq!(read.bytes().len(), read.width() * read.height() * 3);
        }
    }

    #[test]
    fn any_bytes_are_an_error_or_a_picture(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        let _ = decode(&bytes);
    }
}
