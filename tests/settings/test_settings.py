"""The settings file: what it means, and what every mistake in it says."""

from pathlib import Path

import pytest

from dicomnode.cli.settings_template import settings_template
from dicomnode.domain.errors import ExitCode, SettingsError
from dicomnode.settings import Section, Settings, load_settings, machine_timezone, read_settings, shipped

WHOLE = """
[node]
ae_title = "NODE"
data_dir = "data"
timezone = "Asia/Tokyo"

[dicom]
port = 11113
also_called = ["AI_CHEST"]

[web]
port = 8081

[[peers]]
name = "pacs"
ae_title = "ORTHANC"
host = "127.0.0.1"
port = 4242
may = ["store", "query", "retrieve"]

[[destinations]]
name = "pacs"
kind = "dicom"
peer = "pacs"
proof = "find"

[[routes]]
name = "chest-ct"
match = { Modality = "CT", BodyPartExamined = ["CHEST", "THORAX", ""], SliceThickness = "<=3.0", SeriesNumber = 4 }
pipeline = "chest_ct"
send_to = ["pacs"]
"""


@pytest.fixture(autouse=True)
def _no_variables(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import os

    for name in list(os.environ):
        if name.upper().startswith("DICOMNODE_"):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)


def written(text: str) -> Path:
    path = Path.cwd() / "site.toml"
    path.write_text(text)
    return path


def problems_of(text: str) -> list[str]:
    return [str(problem) for problem in read_settings(written(text))[1]]


def test_the_contracts_example_is_understood() -> None:
    settings = load_settings(written(WHOLE))
    assert settings.node.ae_title == "NODE"
    assert settings.timezone == "Asia/Tokyo"
    assert settings.peers[0].may == {"store", "query", "retrieve"}
    assert settings.routes[0].match["BodyPartExamined"] == ("CHEST", "THORAX", "")
    assert settings.routes[0].match["SeriesNumber"] == ("4",)
    assert settings.routes[0].results == ("SEG", "SR", "SC")
    assert settings.destinations[0].accept_demonstration is False


def test_relative_paths_count_from_the_settings_files_folder(tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir()
    path = tmp_path / "etc" / "dicomnode.toml"
    path.write_text(WHOLE + '[database]\nurl = "sqlite:///rows.db"\n')
    settings = load_settings(path)
    assert settings.data_dir == tmp_path / "etc" / "data"
    assert settings.database_url == f"sqlite:///{tmp_path / 'etc' / 'rows.db'}"


def test_the_database_is_in_the_data_folder_by_default() -> None:
    settings = load_settings(written(WHOLE))
    assert settings.database_url == f"sqlite:///{settings.data_dir / 'dicomnode.db'}"


def test_variables_win_over_the_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DICOMNODE_NODE__AE_TITLE", "OTHER")
    monkeypatch.setenv("DICOMNODE_DICOM__PORT", "104")
    monkeypatch.setenv("DICOMNODE_DICOM__ALSO_CALLED", '["A", "B"]')
    settings = load_settings(written(WHOLE))
    assert settings.node.ae_title == "OTHER"
    assert settings.node.data_dir == Path("data")
    assert (settings.dicom.port, settings.dicom.also_called) == (104, ("A", "B"))


def test_the_named_file_then_the_variable_then_the_folder_count(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("dicomnode.toml", "variable.toml", "named.toml"):
        (tmp_path / name).write_text(f'[node]\nae_title = "{name[:4].upper()}"\n')
    assert load_settings().node.ae_title == "DICO"
    monkeypatch.setenv("DICOMNODE_CONFIG", str(tmp_path / "variable.toml"))
    assert load_settings().node.ae_title == "VARI"
    assert load_settings(tmp_path / "named.toml").node.ae_title == "NAME"


def test_no_settings_file_at_all_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dicomnode.settings.PLACES", ())
    with pytest.raises(SettingsError, match="no settings file was found — write one with: dicomnode init"):
        load_settings()
    assert load_settings(required=False).node.ae_title == "DICOMNODE"


def test_an_unknown_key_names_the_nearest_one() -> None:
    (problem,) = problems_of("[dicom]\nprot = 104\n")
    assert problem.startswith("unknown setting dicom.prot — the nearest one is dicom.port:")
    (problem,) = problems_of('[nodes]\nae_title = "X"\n')
    assert "unknown setting nodes — the nearest one is node:" in problem
    (problem,) = problems_of(WHOLE + "quiet = 3\n")
    assert "unknown setting routes[1].quiet — the nearest one is routes[1].quiet_s:" in problem


def test_an_unknown_variable_names_the_nearest_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DICOMNODE_NODE__AETITLE", "X")
    (problem,) = problems_of(WHOLE)
    assert problem.startswith("unknown variable DICOMNODE_NODE__AETITLE — the nearest one is DICOMNODE_NODE__AE_TITLE:")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('[node]\nae_title = "A TITLE THAT IS TOO LONG"\n', "node.ae_title is wrong: an AE title has 1 to 16"),
        ('[node]\ntimezone = "Berlin"\n', "node.timezone is wrong: this is no IANA time zone"),
        ('[node]\nuid_root = "1.02.3"\n', "node.uid_root is wrong"),
        ("[dicom]\nport = 70000\n", "dicom.port is wrong"),
        ('[dicom]\nport = "x"\n', "dicom.port is wrong"),
        ('[dicom]\nextra_sop_classes = ["1.02.3"]\n', "dicom.extra_sop_classes[1] is wrong: a SOP class is a UID"),
        ('[dicom]\nextra_sop_classes = ["1.2.840.10008.1.1"]\n', "this is Verification SOP Class, no storage SOP class"),
        ('[dicom]\nextra_sop_classes = ["CTImageStorge"]\n', "CTImageStorage, 1.2.840.10008.5.1.4.1.1.2, is of the standard"),
        ('[dicom]\nextra_sop_classes = "1.2.3"\n', "dicom.extra_sop_classes is wrong: it must be a list"),
        ('[dicom]\ntransfer_syntaxes = ["JPEGLSLosless"]\n', "dicom.transfer_syntaxes[1] is wrong: this is no transfer syntax"),
        ('[dicom]\ntransfer_syntaxes = ["JPEGLSLosless"]\n', "the nearest one is JPEGLSLossless"),
        ('[dicom]\ntransfer_syntaxes = ["1.2.840.10008.1.2.4.8"]\n', "the nearest one is 1.2.840.10008.1.2.4.8"),
        ('[dicom]\ntransfer_syntaxes = ["1.2.840.10008.1.1"]\n', "this is Verification SOP Class, no transfer syntax"),
        ('[[peers]]\nname = "p"\nae_title = "P"\nhost = "h"\n', "peers[1].port is missing"),
        ('[[peers]]\nname = "p"\nae_title = "P"\nhost = "h"\nport = 1\nmay = ["delete"]\n', "peers[1].may"),
        ("[node\n", "is no TOML"),
        ('[database]\nurl = "sqlite://"\n', "database.url is wrong: an SQLite database needs a file"),
        ('[database]\nurl = "sqlite:///:memory:"\n', "database.url is wrong: an SQLite database needs a file"),
        ('[work]\ndevice = "gpu"\n', "work.device is wrong: use"),
        (WHOLE.replace("<=3.0", "<=thin"), "compares SliceThickness with '<=thin', which is no number"),
        ('[[peers]]\nname = "p"\nae_title = "P"\nhost = ""\nport = 1\n', "peers[1].host is wrong"),
        ('[peers]\nname = "p"\n', "peers is wrong: it must be a list — write [[peers]] instead of [peers] in"),
        ('[pipelines]\nfolders = "models"\n', "pipelines.folders is wrong: it must be a list — put"),
        (WHOLE.replace('send_to = ["pacs"]', 'send_to = ["pcs"]'), "names destination 'pcs', which does not exist"),
        (
            WHOLE.replace('peer = "pacs"', 'peer = "pasc"'),
            "names peer 'pasc', which does not exist — the nearest one is 'pacs'",
        ),
        (
            WHOLE.replace("Modality", "Modalty"),
            "matches 'Modalty', which is no indexed DICOM keyword — the nearest one is Modality",
        ),
        (WHOLE + "max_wait_s = 1\n", "max_wait_s below quiet_s"),
        (WHOLE + "quiet_s = -1\n", "routes[1].quiet_s is wrong"),
        (WHOLE.replace('kind = "dicom"', 'kind = "folder"'), "of kind 'folder' has no path"),
        (WHOLE.replace('peer = "pacs"\n', ""), "of kind 'dicom' has no peer"),
    ],
)
def test_every_mistake_is_one_line_with_a_remedy(text: str, said: str) -> None:
    problems = problems_of(text)
    assert problems
    assert any(said in problem for problem in problems), problems
    for problem in problems:
        assert "\n" not in problem
        what, dash, remedy = problem.partition(" — ")
        assert what
        assert dash
        assert remedy


def test_two_tables_with_one_name_are_refused() -> None:
    peer = '[[peers]]\nname = "p"\nae_title = "P"\nhost = "h"\nport = 1\n'
    assert "two peers are called 'p'" in problems_of(peer * 2)[0]


def test_the_first_problem_says_how_many_more_there_are() -> None:
    with pytest.raises(SettingsError, match="1 more: dicomnode check names all") as raised:
        load_settings(written("[dicom]\nport = 0\nprot = 1\n"))
    assert raised.value.exit_code is ExitCode.USAGE


def test_a_wrong_database_url_does_not_show_its_password() -> None:
    (problem,) = problems_of('[database]\nurl = ["postgresql://user:secret@host/db"]\n')
    assert "secret" not in problem


def test_transfer_syntaxes_may_be_named_by_keyword_or_uid() -> None:
    syntaxes = 'transfer_syntaxes = ["explicitvrlittleendian", "1.2.840.10008.1.2.5"]'
    dicom = load_settings(written(f'[dicom]\n{syntaxes}\nextra_sop_classes = [" 1.3.6.1.4.1.5.1 "]\n')).dicom
    assert dicom.transfer_syntaxes == ("1.2.840.10008.1.2.1", "1.2.840.10008.1.2.5")
    assert dicom.extra_sop_classes == ("1.3.6.1.4.1.5.1",)


def test_settings_never_change() -> None:
    settings = load_settings(written(WHOLE))
    with pytest.raises(ValueError, match="frozen"):
        settings.node.ae_title = "X"


def test_the_file_of_init_is_understood_and_names_every_key() -> None:
    text = settings_template(Path("/srv/data"))
    settings = load_settings(written(text))
    assert settings.data_dir == Path("/srv/data")
    for name, field in Settings.model_fields.items():
        assert f"[{name}]" in text
        sections = [one for one in (field.annotation, *getattr(field.annotation, "__args__", ())) if isinstance(one, type)]
        for section in sections:
            if issubclass(section, Section):
                for key in section.model_fields:
                    assert f"{key} =" in text or f"# {key} " in text, f"{name}.{key}"


def test_what_came_with_the_software_is_found_in_a_checkout() -> None:
    assert (shipped("db") / "env.py").is_file()
    assert shipped("pipelines").is_dir()


def test_what_came_with_the_software_is_found_in_a_wheel(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    package = tmp_path / "site-packages" / "dicomnode"
    (package / "shipped" / "db").mkdir(parents=True)
    monkeypatch.setattr("dicomnode.settings.__file__", str(package / "settings.py"))
    assert shipped("db") == package / "shipped" / "db"


def test_the_machines_zone_is_one_that_exists(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", ":Europe/Berlin")
    assert machine_timezone() == "Europe/Berlin"
    monkeypatch.setenv("TZ", "Nowhere/City")
    assert machine_timezone()


def test_a_wrong_variable_is_named_rather_than_the_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DICOMNODE_DICOM__PORT", "abc")
    (problem,) = problems_of(WHOLE)
    assert "dicom.port is wrong" in problem
    assert problem.endswith("correct it in the variable DICOMNODE_DICOM__PORT")


def test_a_file_that_an_editor_began_with_a_byte_order_mark_is_understood() -> None:
    path = written("")
    path.write_bytes(b"\xef\xbb\xbf" + WHOLE.encode())
    assert read_settings(path)[1] == ()
