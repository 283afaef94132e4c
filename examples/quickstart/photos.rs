//! The input: PNG files of one size from a folder.

use std::path::{Path, PathBuf};

use image::{ImageReader, RgbImage};

/// One picture as read from its file.
#[derive(Debug)]
pub struct Photo {
    /// The file's name without its extension.
    pub name: String,
    pub image: RgbImage,
}

/// Why a folder gives no batch.
#[derive(Debug, thiserror::Error)]
pub enum PhotoError {
    #[error("the folder {} cannot be read", folder.display())]
    Folder { folder: PathBuf, source: std::io::Error },
    #[error("no PNG files in {}; --input needs a folder with at least one", folder.display())]
    None { folder: PathBuf },
    #[error("{} cannot be opened", file.display())]
    Open { file: PathBuf, source: std::io::Error },
    #[error("{} cannot be read as a PNG picture", file.display())]
    Decode { file: PathBuf, source: image::ImageError },
    #[error(
        "a batch needs pictures of one size, but {} is {}x{} and {} is {}x{}",
        first.display(), first_size.0, first_size.1, other.display(), other_size.0, other_size.1
    )]
    SizesDiffer { first: PathBuf, first_size: (u32, u32), other: PathBuf, other_size: (u32, u32) },
}

/// Reads every PNG file of `folder`, sorted by name. Grey, palette, 16-bit and transparent pictures
/// become 8-bit RGB.
pub fn load(folder: &Path) -> Result<Vec<Photo>, PhotoError> {
    let files = png_files(folder)?;
    let mut photos: Vec<Photo> = Vec::with_capacity(files.len());
    for file in &files {
        let image = read(file)?;
        if let Some(first) = photos.first()
            && first.image.dimensions() != image.dimensions()
        {
            return Err(PhotoError::SizesDiffer {
                first: files[0].clone(),
                first_size: first.image.dimensions(),
                other: file.clone(),
                other_size: image.dimensions(),
            });
        }
        let name = file.file_stem().unwrap_or_default();
        photos.push(Photo { name: name.to_string_lossy().into_owned(), image });
    }
    Ok(photos)
}

fn png_files(folder: &Path) -> Result<Vec<PathBuf>, PhotoError> {
    let unreadable = |source| PhotoError::Folder { folder: folder.to_owned(), source };
    let mut files = Vec::new();
    for entry in folder.read_dir().map_err(unreadable)? {
        let path = entry.map_err(unreadable)?.path();
        let is_png =
            path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("png"));
        if is_png && path.is_file() {
            files.push(path);
        }
    }
    files.sort();
    if files.is_empty() {
        return Err(PhotoError::None { folder: folder.to_owned() });
    }
    Ok(files)
}

fn read(file: &Path) -> Result<RgbImage, PhotoError> {
    let reader = ImageReader::open(file)
        .map_err(|source| PhotoError::Open { file: file.to_owned(), source })?;
    let decoded =
        reader.decode().map_err(|source| PhotoError::Decode { file: file.to_owned(), source })?;
    Ok(decoded.to_rgb8())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error_message(folder: &Path) -> String {
        load(folder).err().map(|error| error.to_string()).unwrap_or_default()
    }

    #[test]
    fn pictures_of_two_sizes_are_an_error_that_names_both() -> Result<(), Box<dyn std::error::Error>>
    {
        let folder = tempfile::tempdir()?;
        RgbImage::new(2, 3).save(folder.path().join("a.png"))?;
        RgbImage::new(4, 5).save(folder.path().join("b.png"))?;
        let message = error_message(folder.path());
        assert!(message.contains("a.png is 2x3"), "{message}");
        assert!(message.contains("b.png is 4x5"), "{message}");
        Ok(())
    }

    #[test]
    fn an_unreadable_picture_is_an_error_that_names_it() -> Result<(), Box<dyn std::error::Error>> {
        let folder = tempfile::tempdir()?;
        std::fs::write(folder.path().join("text.png"), "no picture")?;
        let message = error_message(folder.path());
        assert!(message.contains("text.png cannot be read as a PNG picture"), "{message}");
        Ok(())
    }

    #[test]
    fn a_folder_without_pictures_is_an_error_that_names_it()
    -> Result<(), Box<dyn std::error::Error>> {
        let folder = tempfile::tempdir()?;
        let message = error_message(folder.path());
        assert!(
            message.contains(&format!("no PNG files in {}", folder.path().display())),
            "{message}"
        );
        Ok(())
    }

    #[test]
    fn photos_come_in_the_order_of_their_names() -> Result<(), Box<dyn std::error::Error>> {
        let folder = tempfile::tempdir()?;
        for name in ["b.png", "a.PNG", "notes.txt", "c.png"] {
            RgbImage::new(1, 1)
                .save_with_format(folder.path().join(name), image::ImageFormat::Png)?;
        }
        let names: Vec<String> = load(folder.path())?.into_iter().map(|photo| photo.name).collect();
        assert_eq!(names, ["a", "b", "c"]);
        Ok(())
    }
}
