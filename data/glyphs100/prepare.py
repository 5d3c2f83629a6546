"""Write the embedded data set glyphs100 as images, or remake it from the typefaces.

    python data/glyphs100/prepare.py [TARGET]       # images and lists for training
    python data/glyphs100/prepare.py --fonts DIR    # glyphs100.npz, from the fonts in DIR

Only the second command needs Pillow. See README.md.
"""

import argparse
import csv
import io
import os
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
if not __package__:  # run as a script
    sys.path.insert(0, os.path.dirname(os.path.dirname(HERE)))

import runtime.environment  # noqa: E402, F401, I001 (says which packages are missing)

import numpy as np  # noqa: E402

from data import archives, scripts  # noqa: E402
from runtime.errors import UserError  # noqa: E402

ARCHIVE = os.path.join(HERE, 'glyphs100.npz')
TYPEFACES = os.path.join(HERE, 'typefaces.csv')
IMAGES = os.path.join(HERE, 'images')

# The printable ASCII characters without the space, and six that every typeface of the list has:
# pound, section, copyright, inverted question mark, sharp s, euro.
CHARACTERS = ''.join(map(chr, range(0x21, 0x7F))) + '\u00a3\u00a7\u00a9\u00bf\u00df\u20ac'

# Layout of an image, in pixels. All glyphs of a typeface are drawn at one font size: the capital H
# is CAP_HEIGHT high, or less if another glyph would not fit.
SIDE = 32
BASELINE = 23  # rows above the baseline
CAP_HEIGHT = 17
MARGIN = 1
SUPERSAMPLING = 8

# The lock file of a folder of these images. Once the folder is complete, it holds the digest of the
# archive.
MARKER = 'glyphs100.sha256'
ELSEWHERE = ('Write the images to another FOLDER with python data/glyphs100/prepare.py FOLDER and '
             'train with --data_dir=FOLDER.')


def load():
    """Read the archive.

    Returns {'characters': int32 [100] code points in ascending order; class i is the i-th,
    'train_images', 'test_images': uint8 [typefaces, 100, 32, 32], dark on light,
    'train_typefaces', 'test_typefaces': str [typefaces], sorted}. Raises UserError.
    """
    try:
        with np.load(ARCHIVE, allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}
    except Exception as error:  # from zipfile, zlib, NumPy or the file system
        raise UserError(f'{ARCHIVE}: cannot be read ({error}). Restore it from the repository.'
                        ) from None


def write_images(target):
    """Write the data set as PNG files and lists, unless an earlier call did.

    Under `target`: train/<class>/<typeface>.png, val/<class>/<typeface>.png (the test typefaces),
    classes.txt with the character of each label, and finally train.txt and val.txt. If several
    processes call this at the same time, one writes and the others wait.

    Returns whether the images were written. Raises UserError if `target` holds something else or
    the archive is unreadable, OSError from the file system.
    """
    marker = os.path.join(target, MARKER)
    if os.path.isdir(target) and os.listdir(target) and not os.path.exists(marker):
        raise UserError(f'{target}: holds something other than the glyphs100 images. {ELSEWHERE}')
    digest = scripts.file_digest(ARCHIVE)
    if _is_complete(target, digest):
        return False
    arrays = load()
    with scripts.target_folder(target, MARKER, ELSEWHERE):
        if _is_complete(target, digest):  # another process was faster
            return False
        lists = []
        for split, part in (('train', 'train'), ('val', 'test')):
            # 'U+0041', because some file systems do not distinguish a from A.
            entries = [(f'{split}/U+{character:04X}/{typeface}.png', label)
                       for label, character in enumerate(arrays['characters'])
                       for typeface in arrays[part + '_typefaces']]
            images = arrays[part + '_images'].transpose(1, 0, 2, 3).reshape(-1, SIDE, SIDE, 1)
            archives.write_pngs(target, [path for path, _ in entries], images)
            lists.append(sorted(entries))
        scripts.write_lists(target, *lists, classes=list(map(chr, arrays['characters'])))
        scripts.write_file(marker, (digest + '\n').encode())
    return True


def _is_complete(target, digest):
    """Return whether `target` was written from this archive and has all of its files."""
    try:
        lines = []
        for name in (MARKER, 'train.txt', 'val.txt'):
            with open(os.path.join(target, name), encoding='utf-8') as file:
                lines += file.read().splitlines()
    except (OSError, ValueError):  # ValueError: not text
        return False
    return lines[:1] == [digest] and all(
        os.path.exists(os.path.join(target, line.rpartition(' ')[0])) for line in lines[1:])


def read_typefaces():
    """Return the rows of typefaces.csv, as dictionaries."""
    with open(TYPEFACES, newline='') as file:
        return list(csv.DictReader(file))


def make_archive(fonts):
    """Draw every character in every typeface of the list and write the archive.

    `fonts` is the folder that holds node_modules/ with the packages of typefaces.csv. Raises
    UserError if Pillow is missing, OSError if a font is.
    """
    try:
        import PIL  # noqa: F401
    except ImportError:
        raise UserError('--fonts needs Pillow. Run `python -m pip install pillow`.') from None
    arrays = {'characters': np.array([ord(c) for c in CHARACTERS], np.int32)}
    for split in ('train', 'test'):
        rows = [row for row in read_typefaces() if row['split'] == split]
        arrays[split + '_typefaces'] = np.array([row['typeface'] for row in rows])
        arrays[split + '_images'] = np.stack([_draw_typeface(os.path.join(
            fonts, 'node_modules', row['package'], 'files',
            row['typeface'] + '-latin-400-normal.woff')) for row in rows])
    previous = load()
    is_same = all(np.array_equal(previous[name], arrays[name]) for name in arrays)
    content = io.BytesIO()
    np.savez_compressed(content, **arrays)
    scripts.write_file(ARCHIVE, content.getvalue())
    print(f'{ARCHIVE}: {"the same images as before" if is_same else "new images"}')


def _draw_typeface(path):
    """Draw the characters of one font at one size and baseline.

    Returns uint8 [100, 32, 32], dark on light.
    """
    from PIL import Image, ImageDraw, ImageFont

    def font(size):
        with open(path, 'rb') as file:
            return ImageFont.truetype(file, size, layout_engine=ImageFont.Layout.BASIC)

    # Extents in em, from the origin on the baseline; a glyph is centered by its advance width.
    em = 1000
    measured = font(em)
    boxes = {c: measured.getbbox(c, anchor='ls') for c in CHARACTERS}
    above = max(-box[1] for box in boxes.values()) / em
    below = max(box[3] for box in boxes.values()) / em
    half = max(max(measured.getlength(c) / 2 - box[0], box[2] - measured.getlength(c) / 2)
               for c, box in boxes.items()) / em
    cap = -boxes['H'][1] / em
    size = 1 / max(cap / CAP_HEIGHT, above / (BASELINE - MARGIN),
                   below / (SIDE - BASELINE - MARGIN), half / (SIDE / 2 - MARGIN))
    drawn = font(int(size * SUPERSAMPLING))
    images = []
    for c in CHARACTERS:
        canvas = Image.new('L', (SIDE * SUPERSAMPLING, SIDE * SUPERSAMPLING))
        left = int(round(SIDE * SUPERSAMPLING / 2 - drawn.getlength(c) / 2))
        ImageDraw.Draw(canvas).text((left, BASELINE * SUPERSAMPLING), c, fill=255, font=drawn,
                                    anchor='ls')
        ink = np.asarray(canvas, np.float64).reshape(SIDE, SUPERSAMPLING, SIDE, SUPERSAMPLING)
        images.append(255 - np.rint(ink.mean(axis=(1, 3))).astype(np.uint8))
    return np.stack(images)


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0], allow_abbrev=False)
    parser.add_argument('target', nargs='?', default=IMAGES,
                        help='folder for the images (default: %(default)s)')
    parser.add_argument('--fonts', metavar='DIR',
                        help='remake glyphs100.npz from the font packages in DIR/node_modules')
    args = parser.parse_args(argv)
    if args.fonts is not None:
        make_archive(args.fonts)
    else:
        is_new = write_images(args.target)
        print(f'{args.target}: {"written" if is_new else "already complete"}')


if __name__ == '__main__':
    scripts.run(main)
