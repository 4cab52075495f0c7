"""C-FIND (PS3.4 C.4.1) over what was received."""

from tests.archive.holding import Holding
from tests.receiving.samples import changed, ct


def test_a_viewer_finds_the_study_that_a_modality_sent(holding: Holding) -> None:
    image = changed(ct(), PatientName="Doe^John", StudyDate="20240102", AccessionNumber="A17")
    holding.take(image)
    (match,) = holding.findscu("-S", "-k", "QueryRetrieveLevel=STUDY", "-k", "PatientName=doe*", "-k", "StudyInstanceUID")
    assert match.StudyInstanceUID == image.StudyInstanceUID
    assert match.PatientName == "Doe^John"
    assert match.RetrieveAETitle == "DICOMNODE"
    assert not holding.findscu("-S", "-k", "QueryRetrieveLevel=STUDY", "-k", "PatientName=Roe*")
