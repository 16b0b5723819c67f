"""Files: written whole or not at all, safetensors headers and tensors, pictures, JSON, Markdown.

Names are imported when they are first asked for: a header is read without torch.
"""

from typing import TYPE_CHECKING

from orthoplex.exports import exports

if TYPE_CHECKING:
    from orthoplex.files.atomic import check_writable, write_json, write_text, written_atomically
    from orthoplex.files.cache import cache_folder
    from orthoplex.files.error_text import lacks_memory, one_line, summary_of
    from orthoplex.files.header import (
        FLOAT_NAMES,
        HEADER_LIMIT_BYTES,
        PICKLE_SUFFIXES,
        Header,
        TensorEntry,
        read_header,
    )
    from orthoplex.files.json_text import parse_json, read_json
    from orthoplex.files.markdown import markdown_table
    from orthoplex.files.picture_folders import (
        check_picture_folder,
        masks_of,
        no_pictures,
        picture_files,
        stem_of_picture,
    )
    from orthoplex.files.picture_reading import (
        PICTURE_SUFFIXES,
        PictureSize,
        picture_size,
        read_alpha,
        read_mask,
        read_picture,
    )
    from orthoplex.files.recognition import FileKind, is_pointer, pointer_or_page, recognised, recognised_content
    from orthoplex.files.reports import reported, write_report
    from orthoplex.files.tensors import (
        ALL_DTYPES,
        DTYPES,
        is_finite,
        read_tensors,
        tensor_bytes,
        write_in_order,
        write_tensors,
    )
    from orthoplex.files.warning_filters import without_warnings
    from orthoplex.files.whole_folder import check_folder, folder_made_once, folder_written_whole

__getattr__ = exports(
    __name__,
    {
        "ALL_DTYPES": "tensors",
        "DTYPES": "tensors",
        "FLOAT_NAMES": "header",
        "FileKind": "recognition",
        "HEADER_LIMIT_BYTES": "header",
        "Header": "header",
        "PICKLE_SUFFIXES": "header",
        "PICTURE_SUFFIXES": "picture_reading",
        "PictureSize": "picture_reading",
        "TensorEntry": "header",
        "cache_folder": "cache",
        "check_folder": "whole_folder",
        "check_picture_folder": "picture_folders",
        "check_writable": "atomic",
        "folder_made_once": "whole_folder",
        "folder_written_whole": "whole_folder",
        "is_finite": "tensors",
        "is_pointer": "recognition",
        "lacks_memory": "error_text",
        "markdown_table": "markdown",
        "one_line": "error_text",
        "parse_json": "json_text",
        "masks_of": "picture_folders",
        "no_pictures": "picture_folders",
        "picture_files": "picture_folders",
        "picture_size": "picture_reading",
        "pointer_or_page": "recognition",
        "read_header": "header",
        "read_json": "json_text",
        "read_alpha": "picture_reading",
        "read_mask": "picture_reading",
        "read_picture": "picture_reading",
        "recognised": "recognition",
        "recognised_content": "recognition",
        "reported": "reports",
        "stem_of_picture": "picture_folders",
        "summary_of": "error_text",
        "read_tensors": "tensors",
        "tensor_bytes": "tensors",
        "without_warnings": "warning_filters",
        "write_in_order": "tensors",
        "write_json": "atomic",
        "write_report": "reports",
        "write_tensors": "tensors",
        "write_text": "atomic",
        "written_atomically": "atomic",
    },
)

__all__ = [
    "ALL_DTYPES",
    "DTYPES",
    "FLOAT_NAMES",
    "FileKind",
    "HEADER_LIMIT_BYTES",
    "Header",
    "PICKLE_SUFFIXES",
    "PICTURE_SUFFIXES",
    "PictureSize",
    "TensorEntry",
    "cache_folder",
    "check_folder",
    "check_picture_folder",
    "check_writable",
    "folder_made_once",
    "folder_written_whole",
    "is_finite",
    "is_pointer",
    "lacks_memory",
    "markdown_table",
    "masks_of",
    "no_pictures",
    "one_line",
    "parse_json",
    "picture_files",
    "picture_size",
    "pointer_or_page",
    "read_header",
    "read_json",
    "read_alpha",
    "read_mask",
    "read_picture",
    "recognised",
    "recognised_content",
    "reported",
    "stem_of_picture",
    "summary_of",
    "read_tensors",
    "tensor_bytes",
    "without_warnings",
    "write_in_order",
    "write_json",
    "write_report",
    "write_tensors",
    "write_text",
    "written_atomically",
]
