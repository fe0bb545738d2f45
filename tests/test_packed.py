import json
import lzma
import shutil

import numpy as np
import pytest
import torch
from conftest import ROOT
from packing import kept_pieces, pack, pack_small, quantise, ternary, trim
from safetensors.numpy import load, load_file, save
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from tunerank.core.errors import InputError
from tunerank.sources import packed as module
from tunerank.sources.packed import FILES, MODEL, expand, unpack
from tunerank.sources.small import SMALL, unpack_signs, unpack_small

BUNDLED = ROOT / "models/bundled"
committed = pytest.mark.skipif(not BUNDLED.exists(), reason="models/bundled is not in this commit")


def on_grid(random, rows, columns):
    """Return weights of 4 bits in blocks of 32, computed one at a time, as in an E5S1 file.

    Each block has the value 0.
    """
    matrix = np.zeros((rows, columns), np.float32)
    for row in range(rows):
        for start in range(0, columns, 32):
            scale = float(np.float16(random.normal(0, 0.01)))
            nibbles = [int(nibble) for nibble in random.integers(0, 16, 32)]
            nibbles[int(random.integers(32))] = 0
            matrix[row, start : start + 32] = [(nibble - 8) * scale for nibble in nibbles]
    return matrix


# quantisation


@pytest.mark.parametrize("bits, block", [(4, 32), (6, 16), (7, 96), (8, 32)])
def test_codes_equal_those_of_a_plain_loop(bits, block):
    matrix = np.random.default_rng(1).normal(0, 0.05, (3, 96)).astype(np.float32)
    codes, scales = quantise(matrix, bits, block)
    assert codes.shape == (3, 96 * bits // 8) and scales.shape == (3, 96 // block)
    half, wanted = 2 ** (bits - 1), np.zeros_like(matrix)
    for row in range(3):
        text = ""
        for start in range(0, 96, block):
            weights = [float(weight) for weight in matrix[row, start : start + block]]
            scale = float(np.float16(max(weights, key=abs) / -half))
            assert scale == scales[row, start // block]
            for column, weight in enumerate(weights, start):
                number = min(2 * half - 1, max(0, round(weight / scale) + half))
                wanted[row, column] = (number - half) * scale
                text += f"{number:0{bits}b}"
        assert [int(text[at : at + 8], 2) for at in range(0, len(text), 8)] == codes[row].tolist()
    assert expand(codes, scales, 96).tolist() == wanted.tolist()


def test_a_block_of_known_weights_has_the_expected_codes():
    codes, scales = quantise(np.array([[4.0, -3.5, 0.0, 0.5]], np.float32), 4, 4)
    assert scales.tolist() == [[-0.5]]
    assert [f"{code:02x}" for code in codes[0]] == ["0f", "87"]
    assert expand(codes, scales, 4).tolist() == [[4.0, -3.5, 0.0, 0.5]]


def test_embeddings_of_4_bits_are_restored_bit_for_bit():
    matrix = on_grid(np.random.default_rng(2), 40, 96)
    assert expand(*quantise(matrix, 4, 32), 96).tobytes() == matrix.tobytes()


@pytest.mark.parametrize("bits", [4, 7, 8])
def test_errors_are_at_most_half_a_scale(bits):
    matrix = np.random.default_rng(3).normal(0, 0.05, (50, 128)).astype(np.float32)
    codes, scales = quantise(matrix, bits, 128)
    errors = np.abs(expand(codes, scales, 128) - matrix) / np.abs(scales.astype(np.float32))
    inside = (
        matrix / scales.astype(np.float32) <= 2 ** (bits - 1) - 0.5
    )  # one code is missing at the positive end
    # A scale has 11 significant bits. Its rounding error counts 2 ** (bits - 1) times for the
    # extreme weight of a block.
    assert errors[inside].max() <= 0.5 + 1e-4 and errors.max() <= 1 + 2 ** (bits - 12)
    assert inside.mean() > 0.98


@pytest.mark.parametrize("bits, block, columns", [(4, 32, 96), (7, 384, 384), (7, 12, 12)])
@pytest.mark.parametrize("rows", [1, 4, 10, 11])
def test_rows_are_expanded_the_same_for_any_number_at_a_time(
    monkeypatch, bits, block, columns, rows
):
    matrix = np.random.default_rng(5).normal(0, 0.05, (10, columns)).astype(np.float32)
    codes, scales = quantise(matrix, bits, block)
    wanted = np.concatenate(
        [expand(codes[row : row + 1], scales[row : row + 1], columns) for row in range(10)]
    )
    monkeypatch.setattr(module, "BLOCK", rows * columns + 1)
    assert expand(codes, scales, columns).tobytes() == wanted.tobytes()


def test_zeros_are_restored():
    codes, scales = quantise(np.zeros((2, 64), np.float32), 7, 64)
    assert expand(codes, scales, 64).tobytes() == np.zeros((2, 64), np.float32).tobytes()


# the vocabulary

PIECES = [
    ("<s>", 0.0), ("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -2.0), ("▁the", -3.5),
    ("▁th", -4.0), ("e", -5.0), ("カ", -6.0), ("中国", -4.5), ("中", -6.25), ("国", -6.5),
    ("▁中", -5.75), ("한", -7.0), ("ing", -4.25), ("i", -6.0), ("n", -6.0), ("g", -6.0),
    ("。", -3.0), ("▁2024", -5.5), ("中の", -5.0), ("Straße", -9.0), ("t", -5.0), ("h", -5.5),
    (":“", -6.0), ("é", -8.0), ("привет", -8.0), ("<mask>", 0.0),
]  # fmt: skip
CHINESE_AND_SINGLE = [
    "<s>", "<pad>", "</s>", "<unk>", "▁", "e", "中国", "中", "国", "▁中", "i", "n", "g", "。",
    "▁2024", "t", "h", ":“", "é",
]  # fmt: skip


@pytest.fixture
def unigram():
    tokenizer = Tokenizer(models.Unigram(PIECES, unk_id=3))
    tokenizer.normalizer = normalizers.NFKC()
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>",
        pair="<s> $A <mask> $B </s>",
        special_tokens=[("<s>", 0), ("</s>", 2), ("<mask>", 27)],
    )
    tokenizer.add_special_tokens(["<s>", "<pad>", "</s>", "<unk>", "<mask>"])
    return tokenizer


def names(keep):
    return [PIECES[number][0] for number in keep]


def test_chinese_single_character_special_and_used_pieces_are_kept(unigram):
    assert names(kept_pieces(unigram, [])) == [*CHINESE_AND_SINGLE, "<mask>"]
    assert set(names(kept_pieces(unigram, ["the thing"]))) - set(CHINESE_AND_SINGLE) == {
        "▁the",
        "▁th",
        "ing",
        "<mask>",
    }


def test_a_trimmed_tokenizer_segments_covered_texts_like_the_full_one(unigram):
    keep = kept_pieces(unigram, ["the thing"])
    trimmed = trim(json.loads(unigram.to_str()), keep)
    assert (
        trimmed["model"]["vocab"] == [list(PIECES[number]) for number in keep]
        and trimmed["model"]["unk_id"] == 3
    )
    small = Tokenizer.from_str(json.dumps(trimmed))
    for text in ("the thing 中国。", "中国2024 thing:“é", "2024 the中"):
        assert small.encode(text).tokens == unigram.encode(text).tokens
    last = len(keep) - 1
    assert small.token_to_id("<mask>") == last
    pair = small.encode("中", "国")
    assert pair.tokens == ["<s>", "▁中", "<mask>", "▁", "国", "</s>"] and pair.ids[2] == last
    assert small.encode("<mask>").ids == [0, last, 2]


def test_truncation_and_padding_of_the_last_use_are_removed(unigram):
    unigram.enable_truncation(4)
    unigram.enable_padding()
    trimmed = trim(json.loads(unigram.to_str()), kept_pieces(unigram, []))
    assert (trimmed["truncation"], trimmed["padding"]) == (None, None)


def test_a_vocabulary_without_its_special_tokens_is_refused(unigram):
    with pytest.raises(ValueError, match=r"would lose its special tokens \[3, 27\]"):
        trim(json.loads(unigram.to_str()), [0, 1, 2, 4, 5])


# a checkpoint


@pytest.fixture(scope="module")
def full(tiny_model, tmp_path_factory):
    """Return the tiny model with 4-bit embeddings, like e5-small, and a head of distinct scores."""
    folder = tmp_path_factory.mktemp("full") / "model"
    shutil.copytree(tiny_model, folder)
    model = AutoModelForSequenceClassification.from_pretrained(folder)
    embeddings = model.base_model.embeddings.word_embeddings.weight
    with torch.no_grad():
        # Times 16, the scales are still exact in float16.
        embeddings.copy_(
            torch.from_numpy(on_grid(np.random.default_rng(4), *embeddings.shape) * 16)
        )
        model.classifier.out_proj.weight *= 20
    model.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def keep(full):
    """Return all pieces but a few that are in no text below."""
    tokenizer = Tokenizer.from_file(str(full / "tokenizer.json"))
    return [
        number
        for number in kept_pieces(tokenizer, [])
        if tokenizer.id_to_token(number) not in "QXZ"
    ]


@pytest.fixture(scope="module")
def folders(full, keep, tmp_path_factory):
    folder = tmp_path_factory.mktemp("packed")
    pack(full, folder / "packed", keep)
    unpack(folder / "packed", folder / "unpacked")
    return folder / "packed", folder / "unpacked"


PAIRS = [
    ("车是什么颜色？", "这件车是红色的，放在0号柜。"),
    ("灯卖多少元？", "它的价格是5元"),
    ("p07", "保修3年。"),
    ("伞", ""),
]


def read(folder):
    return AutoTokenizer.from_pretrained(
        folder
    ), AutoModelForSequenceClassification.from_pretrained(folder).eval()


def logits(tokenizer, model):
    with torch.no_grad():
        return model(
            **tokenizer(*map(list, zip(*PAIRS)), padding=True, return_tensors="pt")
        ).logits[:, 0]


def test_an_unpacked_model_segments_and_scores_as_before(full, folders):
    before, after = read(full), read(folders[1])
    for pair in PAIRS:
        assert after[0].tokenize(*pair) == before[0].tokenize(*pair)
    wanted, found = logits(*before), logits(*after)
    assert wanted.std() > 0.4 and wanted.argsort().tolist() == found.argsort().tolist()
    # The quantisation error is larger for random weights than for trained ones.
    torch.testing.assert_close(found, wanted, rtol=0.03, atol=0)


def test_an_unpacked_folder_is_a_float32_checkpoint_of_the_kept_pieces(full, keep, folders):
    before, after = (
        load_file(full / "model.safetensors"),
        load_file(folders[1] / "model.safetensors"),
    )
    assert before.keys() == after.keys() and {weight.dtype for weight in after.values()} == {
        np.dtype("float32")
    }
    name = "roberta.embeddings.word_embeddings.weight"
    assert (
        len(keep) == len(before[name]) - 3 and after[name].tobytes() == before[name][keep].tobytes()
    )
    exact = {key for key in before if key != name and before[key].tobytes() == after[key].tobytes()}
    assert exact == {key for key, weight in before.items() if weight.ndim == 1 or len(weight) == 1}
    assert json.loads((folders[1] / "config.json").read_text())["vocab_size"] == len(keep)
    assert len(read(folders[1])[0]) == len(keep)


def test_packing_again_gives_the_same_bytes(full, keep, folders, tmp_path):
    pack(full, tmp_path, keep)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(FILES)
    assert [(tmp_path / name).read_bytes() for name in FILES] == [
        (folders[0] / name).read_bytes() for name in FILES
    ]


def test_packing_an_unpacked_model_changes_nothing_more(keep, folders, tmp_path):
    pack(folders[1], tmp_path, list(range(len(keep))))
    before, after = load_file(folders[0] / MODEL), load_file(tmp_path / MODEL)
    assert before.keys() == after.keys()
    assert all(before[name].tobytes() == after[name].tobytes() for name in before)


@pytest.mark.parametrize("name", FILES)
def test_a_missing_packed_file_is_reported_in_one_line(folders, tmp_path, name):
    packed = tmp_path / "packed"
    shutil.copytree(folders[0], packed, ignore=shutil.ignore_patterns(name))
    with pytest.raises(InputError) as error:
        unpack(packed, tmp_path / "out")
    assert str(error.value) == (
        f"{packed}: not a packed reranker ({name} is missing); "
        f"restore it with git checkout -- {packed}"
    )


@pytest.mark.parametrize("name", FILES[:3])
@pytest.mark.parametrize(
    "damage", [lambda data: data[: len(data) // 2], lambda data: b"version https://git-lfs\n"]
)
def test_a_damaged_packed_file_is_reported_in_one_line(folders, tmp_path, name, damage):
    packed = tmp_path / "packed"
    shutil.copytree(folders[0], packed)
    (packed / name).write_bytes(damage((packed / name).read_bytes()))
    with pytest.raises(InputError) as error:
        unpack(packed, tmp_path / "out")
    assert str(error.value).startswith(
        f"{packed}: cannot be read as a packed reranker ("
    ) and "\n" not in str(error.value)
    assert str(error.value).endswith(f"); restore it with git checkout -- {packed}")
    assert not (tmp_path / "out").exists()


def test_weights_of_another_vocabulary_are_refused(folders, tmp_path):
    packed = tmp_path / "packed"
    shutil.copytree(folders[0], packed)
    config = packed / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"vocab_size": 7}))
    with pytest.raises(InputError, match="cannot be read as a packed reranker .*size mismatch"):
        unpack(packed, tmp_path / "out")


# the smaller one


def test_changes_of_a_known_row_have_the_expected_signs():
    # The squares sum to 36: below 1.9 a change counts as 0, and 36 / (3 + 4 + 2) is 4. The digits
    # of the two bytes, the lowest first: 2 1 0 1 1 and 1 2 1 1 1.
    row = [3, 1.5, -4, 0.5, 0.5, 1.5, 2, -1, 0, 1]
    signs, scales = ternary(np.array([row], np.float32))
    assert signs.tolist() == [[2 + 3 + 0 + 27 + 81, 1 + 6 + 9 + 27 + 81]]
    assert scales.tolist() == [4.0]
    assert unpack_signs(signs).tolist() == [[1, 0, -1, 0, 0, 0, 1, 0, 0, 0]]


@pytest.mark.parametrize("columns", [5, 7, 12, 384])
def test_signs_equal_those_of_a_plain_loop(columns):
    changes = np.random.default_rng(6).normal(0, 0.01, (4, columns)).astype(np.float32)
    signs, scales = ternary(changes)
    assert signs.shape == (4, -(-columns // 5)) and signs.dtype == np.uint8
    for row, changed in enumerate(changes.tolist()):
        squares = sum(value * value for value in changed)
        limit = (squares / columns) ** 0.5
        kept = [value if abs(value) > limit else 0 for value in changed]
        assert unpack_signs(signs)[row, :columns].tolist() == [
            (value > 0) - (value < 0) for value in kept
        ]
        assert scales[row] == pytest.approx(squares / sum(map(abs, kept)), rel=1e-3)


def test_no_change_is_restored_as_none():
    signs, scales = ternary(np.zeros((2, 8), np.float32))
    assert not unpack_signs(signs)[:, :8].any() and scales.tolist() == [0, 0]


@pytest.fixture(scope="module")
def smaller(full, folders, tmp_path_factory):
    """Return a folder with a smaller model, and it packed: layer 1, changed by 5 %."""
    folder = tmp_path_factory.mktemp("smaller")
    shutil.copytree(folders[0], folder / "packed")
    tokenizer, model = read(full)  # of the whole vocabulary
    model.base_model.encoder.layer = model.base_model.encoder.layer[1:]
    model.config.num_hidden_layers = 1
    torch.manual_seed(7)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "word_embeddings" not in name:
                weight += torch.randn_like(weight) * 0.05 * weight.square().mean().sqrt()
    model.save_pretrained(folder / "model")
    tokenizer.save_pretrained(folder / "model")
    pack_small(folder / "model", [1], folder / "packed")
    return folder


def test_a_smaller_model_is_the_larger_one_s_layers_and_changes(smaller, folders, tmp_path):
    unpack_small(smaller / "packed", tmp_path / "out")
    larger, wanted, found = (
        load_file(folder / "model.safetensors")
        for folder in (folders[1], smaller / "model", tmp_path / "out")
    )
    assert found.keys() == wanted.keys() and len(found) < len(larger)
    assert read(tmp_path / "out")[1].config.num_hidden_layers == 1
    for name, weight in found.items():
        before = larger[name.replace("layer.0.", "layer.1.")]
        assert weight.dtype == np.float32 and weight.shape == before.shape
        if "word_embeddings" in name:
            assert weight.tobytes() == before.tobytes()
        elif weight.ndim == 1 or len(weight) == 1:
            np.testing.assert_allclose(weight, wanted[name], rtol=1e-3, atol=1e-6)
        else:
            signs, scales = ternary(wanted[name] - before)
            changes = unpack_signs(signs)[:, : weight.shape[1]] * scales[:, None].astype(np.float32)
            np.testing.assert_array_equal(weight, before + changes)
            # No row is shrunk.
            true = wanted[name] - before
            lengths = ((weight - before) * true).sum(1) / (true**2).sum(1)
            np.testing.assert_allclose(lengths, 1, rtol=2e-3)


def test_the_larger_model_does_not_change_beside_a_smaller_one(smaller, folders, tmp_path):
    unpack(smaller / "packed", tmp_path / "out")
    path = tmp_path / "out/model.safetensors"
    assert path.read_bytes() == (folders[1] / "model.safetensors").read_bytes()


def test_packing_the_smaller_one_again_gives_the_same_bytes(smaller, tmp_path):
    shutil.copytree(smaller / "packed", tmp_path / "packed")
    (tmp_path / "packed" / SMALL).unlink()
    pack_small(smaller / "model", [1], tmp_path / "packed")
    again = (tmp_path / "packed" / SMALL).read_bytes()
    assert again == (smaller / "packed" / SMALL).read_bytes()


def test_a_model_of_other_layers_is_not_packed(smaller, folders, tmp_path):
    with pytest.raises(InputError, match="are not those of 2 layers of the model in"):
        pack_small(smaller / "model", [0, 1], folders[0])
    assert not (folders[0] / SMALL).exists()


def rewritten(path, **changes):
    """Write the file's arrays with `changes`; None leaves one out."""
    arrays = load(lzma.decompress(path.read_bytes())) | changes
    kept = {name: array for name, array in arrays.items() if array is not None}
    path.write_bytes(lzma.compress(save(kept)))


DENSE = "classifier.dense.weight"
DAMAGES = {
    "missing": lambda path: path.unlink(),
    "cut": lambda path: path.write_bytes(path.read_bytes()[:-500]),
    "not compressed": lambda path: path.write_bytes(lzma.decompress(path.read_bytes())),
    "a pickle": lambda path: path.write_bytes(lzma.compress(b"\x80\x04N.")),
    "no layers": lambda path: rewritten(path, layers=None),
    "a layer too far": lambda path: rewritten(path, layers=np.array([7], np.uint8)),
    "another name": lambda path: rewritten(path, **{"roberta.other": np.zeros(3, np.float16)}),
    "another shape": lambda path: rewritten(path, **{DENSE: np.zeros((3, 3), np.float16)}),
    "signs of another width": lambda path: rewritten(
        path, **{f"{DENSE}.signs": np.zeros((32, 1), np.uint8)}
    ),
    "no scales": lambda path: rewritten(path, **{f"{DENSE}.scales": None}),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_smaller_model_is_reported_in_one_line(smaller, tmp_path, damage):
    packed = tmp_path / "packed"
    shutil.copytree(smaller / "packed", packed)
    DAMAGES[damage](packed / SMALL)
    with pytest.raises(InputError) as error:
        unpack_small(packed, tmp_path / "out")
    assert str(error.value).startswith(f"{packed / SMALL}: cannot be read as changes to {packed} (")
    assert "\n" not in str(error.value)
    assert str(error.value).endswith(f"); restore it with git checkout -- {packed}")
    assert not (tmp_path / "out").exists()


# models/bundled


# Mixed-case and technical names are not among the frequent words that models/bundled was packed
# with.
NAMES = pytest.mark.xfail(
    strict=True, reason="a name whose pieces were not kept is segmented finer"
)

# The pieces of the full tokenizer of multilingual-e5-small.
SEGMENTED = [
    pytest.param(
        "签名采用HMAC-SHA256,请求头中的时间戳不得相差超过300秒。",
        "▁ 签 名 采用 HM AC - SHA 256 , 请求 头 中 的时间 戳 不得 相 差 超过 300 秒 。",
        marks=NAMES,
    ),
    (
        "用户在小程序里领到的通行凭据几个钟头就作废？",
        "▁ 用户 在 小 程序 里 领 到的 通行 凭 据 几个 钟 头 就 作 废 ?",
    ),
    ("这件商品的价格是 1,280 元，保修三年。", "▁这 件 商品 的价格 是 ▁1,2 80 ▁ 元 , 保 修 三年 。"),
    ("北京市海淀区中关村大街1号", "▁ 北京市 海 淀 区 中 关 村 大 街 1 号"),
    ("請問圖書館幾點開門？", "▁ 請問 圖書館 幾 點 開 門 ?"),
    ("量子力学与广义相对论尚未统一。", "▁ 量 子 力 学 与 广 义 相对 论 尚未 统一 。"),
    ("他说：“明天上午9点开会”，然后走了。", "▁ 他说 :“ 明天 上午 9 点 开 会 ”, 然后 走了 。"),
    (
        "The quick brown fox jumps over the lazy dog.",
        "▁The ▁quick ▁brown ▁ fox ▁jump s ▁over ▁the ▁la zy ▁dog .",
    ),
    ("How do I reset my password?", "▁How ▁do ▁I ▁reset ▁my ▁password ?"),
    pytest.param("WiFi password: abc123!", "▁WiFi ▁password : ▁ab c 123 !", marks=NAMES),
    ("Machine learning models need clean data.", "▁Machine ▁learning ▁models ▁need ▁clean ▁data ."),
    ("THE END", "▁THE ▁ END"),
]


@committed
@pytest.mark.parametrize("text, pieces", SEGMENTED)
def test_the_committed_tokenizer_segments_like_the_full_one(text, pieces):
    tokenizer = Tokenizer.from_file(str(BUNDLED / "tokenizer.json"))
    assert tokenizer.encode(text, add_special_tokens=False).tokens == pieces.split(" ")


@committed
def test_the_committed_folder_is_small_enough_for_git():
    assert sum(path.stat().st_size for path in BUNDLED.iterdir()) <= 30_000_000
    assert sorted(path.name for path in BUNDLED.iterdir()) == sorted((*FILES, SMALL))
