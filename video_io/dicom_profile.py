"""DICOM attributes by the Basic Application Level Confidentiality Profile (DICOM PS3.15, annex E, table E.1-1).

The table's rows and actions are those that the package dicom-anonymizer has taken from the standard's 2026c edition;
what an action does is here. X: removed. Z: emptied. D: a dummy value of its kind. U: another UID, the same for the
same one. Where the table leaves a choice that depends on the object's definition (X/Z, X/D, X/Z/D, Z/D, X/Z/U*), the
one that keeps every object valid is taken: a dummy where D is offered, otherwise empty; for U* the sequence stays and
the UIDs in it are others. Private attributes, curves and overlay planes go (X). Options of the profile that retain
anything are not used.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from video_io.errors import InputError

if TYPE_CHECKING:
    from pydicom import Dataset
    from pydicom.dataelem import DataElement

EDITION = "2026c"
_ACTIONS = {
    "X_TAGS": "X", "Z_TAGS": "Z", "D_TAGS": "D", "U_TAGS": "U", "Z_D_TAGS": "D", "X_Z_TAGS": "Z", "X_D_TAGS": "D",
    "X_Z_D_TAGS": "D", "X_Z_U_STAR_TAGS": "U",
}  # fmt: skip
_DUMMIES: dict[str, Any] = {
    "AE": "ANONYMOUS", "AS": "000Y", "CS": "ANONYMOUS", "DA": "19000101", "DS": "0", "DT": "19000101000000", "IS": "0",
    "LO": "ANONYMOUS", "LT": "ANONYMOUS", "PN": "ANONYMOUS", "SH": "ANONYMOUS", "ST": "ANONYMOUS", "TM": "000000",
    "UC": "ANONYMOUS", "UT": "ANONYMOUS", "UR": "about:blank", "FD": 0.0, "FL": 0.0, "SL": 0, "SS": 0, "UL": 0, "US": 0,
    "SV": 0, "UV": 0, "OB": b"\0\0", "OW": b"\0\0", "UN": b"\0\0",
}  # fmt: skip
_FREE_TEXT = {"LO", "LT", "PN", "SH", "ST", "UC", "UT", "AE", "CS"}


@lru_cache(maxsize=1)
def table() -> tuple[dict[int, str], tuple[tuple[int, int, str], ...]]:
    """Action by tag, and (tag, mask, action) of the repeating groups, which a masked tag is compared with.

    Raises:
        InputError: dicom-anonymizer, which holds the table, is not installed.
    """
    try:
        rows = importlib.import_module(f"dicomanonymizer.dicom_anonymization_databases.dicomfields_{EDITION}")
    except ModuleNotFoundError as error:
        raise InputError(
            "the confidentiality profile needs 'dicom-anonymizer', which is not installed; expected the extra 'dicom'; "
            "type: pip install 'endorecon[dicom]'"
        ) from error
    single: dict[int, str] = {}
    groups: list[tuple[int, int, str]] = []
    for name, action in _ACTIONS.items():
        for row in getattr(rows, name):
            if len(row) == 2:
                single[(row[0] << 16) | row[1]] = action
            else:
                groups.append(((row[0] << 16) | row[1], (row[2] << 16) | row[3], action))
    return single, tuple(groups)


def action_of(tag: int, private: bool = False) -> str:
    """X, Z, D or U for an attribute of the table; "" for one that stays."""
    if private:
        return "X"
    single, groups = table()
    if tag in single:
        return single[tag]
    return next((action for at, mask, action in groups if tag & mask == at & mask), "")


@dataclass
class Applied:
    """What has been done so far.

    Attributes:
        salt: random; from it and an old UID follows the new one.
        removed: the attributes' names with what happened to them, in order, without values.
        secrets: values of names and numbers of the patient, which may stand in other attributes as well.
    """

    salt: str
    removed: list[str] = field(default_factory=list)
    secrets: set[str] = field(default_factory=set)


def apply(dataset: Dataset, text_blanked: bool) -> list[str]:
    """Apply the profile to a data set in place, nested items included; returns what was done, without values.

    Args:
        dataset: as read, with `file_meta`.
        text_blanked: whether burnt-in text was looked for and blanked, which the result then states.
    """
    import secrets

    state = Applied(secrets.token_hex(16))
    for name in ("PatientName", "PatientID", "OtherPatientNames", "OtherPatientIDs"):
        for part in str(dataset.get(name, "")).replace("^", " ").replace("\\", " ").split():
            if len(part) > 2:
                state.secrets.add(part.lower())
    _walk(dataset, state, "")
    _file_meta(dataset, state)
    _state_it(dataset, text_blanked)
    return state.removed


def _walk(dataset: Dataset, state: Applied, where: str) -> None:
    for element in list(dataset):
        action = action_of(int(element.tag), element.tag.is_private)
        name = where + (element.name if not element.tag.is_private else f"private attribute {element.tag}")
        if action == "X":
            del dataset[element.tag]
            state.removed.append(f"{name}: removed")
        elif action == "Z" and element.VR != "SQ":
            if not element.is_empty:
                state.removed.append(f"{name}: emptied")
            element.value = "" if element.VR in _FREE_TEXT else None
        elif action == "D" and element.VR != "SQ":
            _replace(element, state, name)
        elif action == "U" and element.VR != "SQ":
            _other_uid(element, state, name)
        elif element.VR == "SQ":
            if action == "Z":
                element.value = []
                state.removed.append(f"{name}: emptied")
                continue
            for item in element.value or []:
                if action == "D":
                    _dummies(item, state, name + " > ")
                _walk(item, state, name + " > ")
        elif element.VR in _FREE_TEXT and _holds_secret(element, state):
            element.value = ""
            state.removed.append(f"{name}: emptied (it repeats the patient's name or number)")


def _replace(element: DataElement, state: Applied, name: str) -> None:
    if not element.is_empty:
        state.removed.append(f"{name}: replaced by a dummy")
    if element.VR == "UI":
        _other_uid(element, state, name)
    else:
        element.value = _DUMMIES.get(element.VR, "")


def _dummies(item: Dataset, state: Applied, where: str) -> None:
    """Every text, date and person in an item whose sequence is to be a dummy."""
    for element in item:
        if element.VR in _DUMMIES and element.VR not in ("CS", "US", "UL", "OB", "OW"):
            _replace(element, state, where + element.name)


def _other_uid(element: DataElement, state: Applied, name: str) -> None:
    from pydicom.uid import generate_uid

    if element.is_empty:
        return
    if element.VR != "UI":
        element.value = _DUMMIES.get(element.VR, "")
    else:
        values = element.value if element.VM > 1 else [element.value]
        fresh = [generate_uid(entropy_srcs=[state.salt, str(value)]) for value in values]
        element.value = fresh if element.VM > 1 else fresh[0]
    state.removed.append(f"{name}: replaced by another UID")


def _holds_secret(element: DataElement, state: Applied) -> bool:
    text = str(element.value).lower()
    return any(secret in text for secret in state.secrets)


def _file_meta(dataset: Dataset, state: Applied) -> None:
    meta = getattr(dataset, "file_meta", None)
    dataset.preamble = b"\0" * 128
    if meta is None:
        return
    for element in list(meta):
        kept = element.keyword in (
            "FileMetaInformationGroupLength", "FileMetaInformationVersion", "MediaStorageSOPClassUID",
            "MediaStorageSOPInstanceUID", "TransferSyntaxUID", "ImplementationClassUID",
        )  # fmt: skip
        if not kept:
            del meta[element.tag]
            state.removed.append(f"file meta > {element.name}: removed")
    meta.MediaStorageSOPInstanceUID = dataset.get("SOPInstanceUID", meta.get("MediaStorageSOPInstanceUID", ""))


def _state_it(dataset: Dataset, text_blanked: bool) -> None:
    """What the profile asks the result to say of itself (PS3.15 E.1.1; codes of CID 7050)."""
    from pydicom import Dataset as Item

    codes = [("113100", "Basic Application Confidentiality Profile")]
    if text_blanked:
        codes.append(("113101", "Clean Pixel Data Option"))
        dataset.BurnedInAnnotation = "NO"
    items = []
    for value, meaning in codes:
        item = Item()
        item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = value, "DCM", meaning
        items.append(item)
    dataset.PatientIdentityRemoved = "YES"
    dataset.DeidentificationMethod = f"endorecon, PS3.15 table E.1-1 ({EDITION})"
    dataset.DeidentificationMethodCodeSequence = items
    dataset.LongitudinalTemporalInformationModified = "REMOVED"
