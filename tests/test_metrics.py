# SPDX-License-Identifier: Apache-2.0
"""Each metric against an independent library, or numbers that can be worked by hand."""

import contextlib
import io

import jiwer
import numpy as np
import pytest
from scipy.special import rel_entr, softmax
from sklearn import metrics as sklearn_metrics

from gate.config import MetricChoice
from gate.errors import ConfigError, UsageError
from gate.metrics import Kind, load
from gate.report import Unit

RNG = np.random.default_rng(7)


def metric(name, **parameters):
    return load(MetricChoice(name=name, **parameters))


def figure(name, outputs, labels, **parameters):
    made = metric(name, **parameters)
    return made.total(made.per_item({"out": outputs}, labels))


# --- classes -----------------------------------------------------------------------------------------------------------


SCORES = RNG.normal(size=(300, 7)).astype(np.float32)
LABELS = np.where(RNG.random(300) < 0.6, SCORES.argmax(1), RNG.integers(0, 7, 300))


def test_accuracy_agrees_with_scikit_learn():
    assert figure("accuracy", SCORES, LABELS) == pytest.approx(sklearn_metrics.accuracy_score(LABELS, SCORES.argmax(1)))


@pytest.mark.parametrize("k", [1, 2, 5])
def test_top_k_agrees_with_scikit_learn(k):
    expected = sklearn_metrics.top_k_accuracy_score(LABELS, SCORES, k=k, labels=range(7))
    assert figure("top_k", SCORES, LABELS, k=k) == pytest.approx(expected)


def test_top_k_gives_an_equal_score_to_the_lower_class():
    scores = np.array([[1.0, 1.0, 0.0]] * 2)
    made = metric("top_k", k=1)
    assert made.per_item({"out": scores}, np.array([0, 1])).tolist() == [1.0, 0.0]


def test_f1_macro_agrees_with_scikit_learn():
    assert figure("f1", SCORES, LABELS) == pytest.approx(
        sklearn_metrics.f1_score(LABELS, SCORES.argmax(1), average="macro")
    )


def test_f1_macro_leaves_out_classes_that_do_not_occur():
    scores = np.eye(5)[[0, 1, 1, 0]]
    labels = np.array([0, 1, 0, 0])
    expected = sklearn_metrics.f1_score(labels, scores.argmax(1), average="macro")
    assert figure("f1", scores, labels) == pytest.approx(expected) == pytest.approx((4 / 5 + 2 / 3) / 2)


@pytest.mark.parametrize("threshold", [0.3, 0.5, 0.9])
def test_f1_binary_holds_one_score_to_the_threshold(threshold):
    scores, labels = RNG.random(200), RNG.integers(0, 2, 200)
    expected = sklearn_metrics.f1_score(labels, scores >= threshold)
    assert figure("f1", scores, labels, average="binary", threshold=threshold) == pytest.approx(expected)


def test_a_threshold_can_fail_while_the_ranking_is_perfect():
    scores, labels = np.array([0.1, 0.2, 0.3, 0.4]), np.array([0, 0, 1, 1])
    assert sklearn_metrics.roc_auc_score(labels, scores) == 1
    assert figure("accuracy", scores, labels) == 0.5
    assert figure("accuracy", scores, labels, threshold=0.25) == 1


def test_weights_count_items_as_often_as_they_are_drawn():
    made = metric("f1")
    rows = made.per_item({"out": SCORES}, LABELS)
    drawn = RNG.integers(0, 300, 300)
    again = made.figure(rows, np.bincount(drawn, minlength=300)[None, :].astype(float))
    expected = sklearn_metrics.f1_score(LABELS[drawn], SCORES.argmax(1)[drawn], average="macro")
    assert again[0] == pytest.approx(expected)


def test_a_model_that_answers_with_names_is_compared_by_name():
    said = np.array(["cat", "dog", "dog"])
    assert figure("accuracy", said, np.array(["cat", "cat", "dog"])) == pytest.approx(2 / 3)
    assert figure("accuracy", said, np.array([0, 0, 1]), class_names=["cat", "dog"]) == pytest.approx(2 / 3)


def test_named_labels_are_numbered_by_the_class_names():
    scores = np.eye(2)[[0, 1, 1]]
    assert figure("accuracy", scores, np.array(["cat", "cat", "dog"]), class_names=["cat", "dog"]) == pytest.approx(
        2 / 3
    )


def test_a_dictionary_of_probabilities_is_read_by_sorted_names():
    probabilities = np.array([{0: 0.2, 1: 0.8}, {0: 0.9, 1: 0.1}], dtype=object)
    assert figure("accuracy", probabilities, np.array([1, 1])) == 0.5


def test_an_answer_that_is_not_finite_is_marked():
    scores = np.array([[0.0, 1.0], [np.nan, 1.0], [np.inf, 0.0]])
    assert np.isnan(metric("accuracy").per_item({"out": scores}, np.array([1, 1, 1]))).tolist() == [False, True, True]


# --- numbers -----------------------------------------------------------------------------------------------------------


SEEN, TRUE = RNG.normal(size=(40, 3, 5)), RNG.normal(size=(40, 3, 5))


def test_rmse_agrees_with_scikit_learn():
    expected = sklearn_metrics.root_mean_squared_error(TRUE.ravel(), SEEN.ravel())
    assert figure("rmse", SEEN, TRUE) == pytest.approx(expected)


def test_mae_agrees_with_scikit_learn():
    assert figure("mae", SEEN, TRUE) == pytest.approx(sklearn_metrics.mean_absolute_error(TRUE.ravel(), SEEN.ravel()))


def test_cosine_agrees_with_scikit_learn():
    expected = np.diag(sklearn_metrics.pairwise.cosine_similarity(SEEN.reshape(40, -1), TRUE.reshape(40, -1))).mean()
    assert figure("cosine", SEEN, TRUE) == pytest.approx(expected)


def test_cosine_of_zero_vectors_is_one_and_of_one_of_them_zero():
    rows = metric("cosine").per_item({"out": np.array([[0.0, 0.0], [0.0, 0.0]])}, np.array([[0.0, 0.0], [1.0, 0.0]]))
    assert rows.tolist() == [1.0, 0.0]


def test_kl_agrees_with_scipy():
    p, q = softmax(TRUE[:, 0], axis=1), softmax(SEEN[:, 0], axis=1)
    expected = rel_entr(p, q).sum(axis=1).mean()
    assert figure("kl", q, p) == pytest.approx(expected)
    assert figure("kl", SEEN[:, 0], TRUE[:, 0], logits=True) == pytest.approx(expected)
    assert expected > 0


def test_psnr_by_hand():
    # an error of 1 on a peak of 10 is 100 times weaker in power: 20 dB
    assert figure("psnr", np.full((1, 4), 3.0), np.full((1, 4), 2.0), peak=10) == pytest.approx(20)


def test_snr_by_hand():
    # signal 2, noise 0.02: 100 times in amplitude, 40 dB; an exact answer is cut at 150 dB
    rows = metric("snr").per_item({"out": np.array([[2.02, 2.02], [2.0, 2.0]])}, np.full((2, 2), 2.0))
    assert rows == pytest.approx([40, 150])


def test_agreement_is_the_relative_distance_of_the_furthest_output():
    made = metric("agreement")
    reference = {"a": np.array([[3.0, 4.0]]), "b": np.array([[1.0]])}
    rows = made.per_item({"a": np.array([[3.0, 4.5]]), "b": np.array([[1.02]])}, made.answer(reference))
    assert made.total(rows) == pytest.approx(0.5 / 5)


# --- masks -------------------------------------------------------------------------------------------------------------


def test_miou_agrees_with_scikit_learn():
    scores, labels = RNG.normal(size=(6, 4, 9, 8)), RNG.integers(0, 4, (6, 9, 8))
    expected = sklearn_metrics.jaccard_score(labels.ravel(), scores.argmax(1).ravel(), average="macro")
    assert figure("miou", scores, labels) == pytest.approx(expected)


def test_miou_ignores_pixels_by_hand():
    # left: 2 right of 3 pixels that count. class 0: 1 of 2, class 1: 1 of 2; the last pixel does not count
    mask, label = np.array([[[0, 1, 1, 0]]]), np.array([[[0, 1, 0, 255]]])
    assert figure("miou", mask, label, classes=2, ignore=255) == pytest.approx((1 / 2 + 1 / 2) / 2)


# --- text --------------------------------------------------------------------------------------------------------------


WORDS = ["the", "cat", "sat", "on", "a", "mat", "today"]


def _sentences(count):
    return [" ".join(RNG.choice(WORDS, RNG.integers(1, 9))) for _ in range(count)]


@pytest.mark.parametrize(("per", "library"), [("word", jiwer.wer), ("character", jiwer.cer)])
def test_wer_agrees_with_jiwer(per, library):
    said, true = _sentences(120), _sentences(120)
    assert figure("wer", np.array(said), np.array(true), per=per) == pytest.approx(library(true, said))


def test_wer_decodes_ctc():
    # a a - b b - b → "a b b" with blank 0
    scores = np.eye(3)[[[1, 1, 0, 2, 2, 0, 2]]]
    made = metric("wer", blank=0, vocabulary=["", "a ", "b "])
    assert made.answer({"out": scores}).tolist() == ["a b b"]
    assert made.total(made.per_item({"out": scores}, np.array(["a b"]))) == pytest.approx(1 / 2)


def test_wer_counts_class_numbers_and_skips_what_fills_up():
    said, true = np.array([[4, 5, 6, -1]]), np.array([[4, 6, -1, -1]])
    assert figure("wer", said, true) == pytest.approx(1 / 2)


# --- boxes -------------------------------------------------------------------------------------------------------------


def _scene(images, classes=3, most=6):
    """Draw true boxes, and detections that are shifted, missing, doubled, or of the wrong class."""
    true = np.full((images, most, 5), -1.0)
    boxes, scores, names = [
        np.zeros((images, 2 * most, 4)),
        np.zeros((images, 2 * most)),
        np.full((images, 2 * most), -1.0),
    ]
    for i in range(images):
        count = RNG.integers(0, most + 1)
        corner, size = RNG.uniform(0, 80, (count, 2)), RNG.uniform(5, 40, (count, 2))
        true[i, :count, 0] = RNG.integers(0, classes, count)
        true[i, :count, 1:] = np.concatenate([corner, size], axis=1)
        found = [j for j in range(count) for _ in range(RNG.choice([0, 1, 1, 1, 2]))][: 2 * most]
        k = len(found)
        boxes[i, :k] = true[i, found, 1:] + RNG.normal(0, 1.5, (k, 4))
        boxes[i, :k, 2:] = np.maximum(boxes[i, :k, 2:], 1)
        names[i, :k] = np.where(RNG.random(k) < 0.9, true[i, found, 0], RNG.integers(0, classes, k))
        scores[i, :k] = RNG.permutation(1000)[:k] / 1000 + i * 1e-6
    return true, boxes, scores, names


def _pycocotools(true, boxes, scores, names, classes=3):
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    truth = COCO()
    annotations = [
        {"image_id": i, "category_id": int(b[0]), "bbox": b[1:].tolist(), "area": float(b[3] * b[4]), "iscrowd": 0}
        for i, image in enumerate(true)
        for b in image
        if b[0] >= 0
    ]
    truth.dataset = {
        "images": [{"id": i} for i in range(len(true))],
        "categories": [{"id": c} for c in range(classes)],
        "annotations": [{**a, "id": n + 1} for n, a in enumerate(annotations)],
    }
    found = [
        {"image_id": i, "category_id": int(names[i, j]), "bbox": boxes[i, j].tolist(), "score": float(scores[i, j])}
        for i, j in zip(*np.nonzero(names >= 0), strict=True)
    ]
    with contextlib.redirect_stdout(io.StringIO()):
        truth.createIndex()
        evaluated = COCOeval(truth, truth.loadRes(found), "bbox")
        evaluated.evaluate()
        evaluated.accumulate()
        evaluated.summarize()
    return evaluated.stats


def test_map_agrees_with_pycocotools_on_250_images():
    true, boxes, scores, names = _scene(250)
    outputs = {"b": boxes, "s": scores, "c": names}
    expected = _pycocotools(true, boxes, scores, names)
    for iou, value in (("coco", expected[0]), (0.5, expected[1]), (0.75, expected[2])):
        made = metric("map", boxes="b", scores="s", classes="c", layout="xywh", iou=iou)
        assert made.total(made.per_item(outputs, true)) == pytest.approx(value, abs=1e-12)
    assert 0.1 < expected[2] < expected[1] < 0.9


def test_map_reads_a_score_per_class_and_holds_it_to_the_threshold():
    true = np.array([[[1.0, 0, 0, 10, 10]]])
    outputs = {"b": np.array([[[0.0, 0, 10, 10]]]), "s": np.array([[[0.2, 0.6]]])}
    made = metric("map", boxes="b", scores="s", layout="xyxy")
    assert made.total(made.per_item(outputs, true)) == 1
    strict = metric("map", boxes="b", scores="s", score_threshold=0.7)
    assert strict.total(strict.per_item(outputs, true)) == 0


def test_map_draws_images_again():
    true, boxes, scores, names = _scene(60)
    made = metric("map", boxes="b", scores="s", classes="c", layout="xywh")
    rows = made.per_item({"b": boxes, "s": scores, "c": names}, true)
    drawn = np.sort(RNG.integers(0, 60, 60))
    again = made.per_item({"b": boxes[drawn], "s": scores[drawn], "c": names[drawn]}, true[drawn])
    weights = np.bincount(drawn, minlength=60)[None, :].astype(float)
    assert made.figure(rows, weights)[0] == pytest.approx(made.total(again), abs=1e-3)


# --- the team's own, and what is refused ---------------------------------------------------------------------------------


def test_an_own_metric_is_the_mean_of_the_workers_numbers():
    choice = MetricChoice(name="score.py", higher_is_better=False)
    made = load(choice, per_item=lambda outputs, labels: outputs["out"] - labels)
    assert (made.kind, made.unit, made.higher_is_better) == (Kind.MEAN, Unit.NUMBER, False)
    assert made.total(made.per_item({"out": np.array([1.0, 4.0])}, np.array([0.0, 0.0]))) == 2.5


def test_an_own_metric_must_give_one_number_per_item():
    made = load(MetricChoice(name="score.py"), per_item=lambda outputs, labels: np.zeros(3))
    with pytest.raises(UsageError, match=r"found shape \(3,\), expected one number for each of 2 items"):
        made.per_item({"out": np.zeros(2)}, None)


@pytest.mark.parametrize(
    ("name", "parameters", "told"),
    [
        ("acuracy", {}, 'did you mean "accuracy"'),
        ("zzz", {}, "known: accuracy, top_k"),
        ("f1", {"avrage": "macro"}, 'did you mean "average"'),
        ("top_k", {"k": 0}, "metric top_k: k"),
        ("psnr", {"peak": -1}, "metric psnr: peak"),
        ("map", {}, "metric map: boxes: required"),
    ],
)
def test_a_wrong_choice_is_told_with_the_nearest_name(name, parameters, told):
    with pytest.raises(ConfigError, match=told):
        metric(name, **parameters)


@pytest.mark.parametrize(
    ("name", "outputs", "labels", "told"),
    [
        ("accuracy", np.zeros((2, 3)), np.array([0, 3]), "found label 3, but the output has 3 classes"),
        ("accuracy", np.zeros((2, 3)), np.array([0, -1]), "found label -1"),
        ("accuracy", np.zeros((2, 3)), np.array([0, 0.5]), "found label 0.5, expected whole classes"),
        ("accuracy", np.zeros((2, 3)), np.array(["a", "b"]), "labels are names"),
        ("accuracy", np.zeros((2, 3)), np.zeros((2, 3)), "expected one class per item"),
        ("accuracy", np.zeros((2, 3, 4)), np.array([0, 1]), r"shape \(2, 3, 4\), expected \(items, classes\)"),
        ("accuracy", np.zeros(2), np.array([0, 2]), "the output has 2 classes"),
        ("top_k", np.zeros((2, 3)), np.array([0, 1]), "expected more than k = 5 classes"),
        ("f1", np.array(["a", "b"]), np.array(["a", "b"]), "list them"),
        ("rmse", np.zeros((2, 3)), np.zeros((2, 4)), r"shape \(2, 3\), the label \(2, 4\)"),
        ("miou", np.zeros((2, 3, 4, 4)), np.zeros((2, 4, 5), int), "expected equal"),
        ("miou", np.zeros((2, 3, 4, 4)), np.full((2, 4, 4), 3), "found label 3"),
        ("wer", np.zeros((2, 3)), np.array(["a", "b"]), "expected .items, time, classes. or text"),
    ],
)
def test_labels_that_do_not_fit_the_output_are_refused(name, outputs, labels, told):
    with pytest.raises(UsageError, match=told):
        metric(name).per_item({"out": outputs}, labels)


def test_one_of_several_outputs_must_be_chosen():
    outputs = {"logits": SCORES, "features": SCORES[:, :2]}
    with pytest.raises(UsageError, match="outputs features, logits; say which one with output: NAME"):
        metric("accuracy").per_item(outputs, LABELS)
    with pytest.raises(UsageError, match="found 'logit', expected one of features, logits"):
        metric("accuracy", output="logit").per_item(outputs, LABELS)
    assert metric("accuracy", output="logits").per_item(outputs, LABELS).shape == (300,)


EVERY = {
    "accuracy": {"out": SCORES},
    "top_k": {"out": SCORES},
    "f1": {"out": SCORES},
    "miou": {"out": RNG.normal(size=(4, 3, 5, 5))},
    "wer": {"out": np.array(["a b", "c"])},
    "rmse": {"out": SEEN},
    "mae": {"out": SEEN},
    "psnr": {"out": SEEN},
    "snr": {"out": SEEN},
    "cosine": {"out": SEEN},
    "kl": {"out": softmax(SEEN[:, 0], axis=1)},
    "agreement": {"out": SEEN},
}


@pytest.mark.parametrize("name", EVERY)
def test_a_model_agrees_with_its_own_answers(name):
    made = metric(name)
    rows = made.per_item(EVERY[name], made.answer(EVERY[name]))
    best = {"psnr": 150, "snr": 150}.get(name, 1.0 if made.higher_is_better else 0.0)
    assert made.total(rows) == pytest.approx(best)


def test_detections_agree_with_themselves():
    _, boxes, scores, names = _scene(20)
    made = metric("map", boxes="b", scores="s", classes="c", layout="xywh")
    outputs = {"b": boxes, "s": scores, "c": names}
    assert made.total(made.per_item(outputs, made.answer(outputs))) == pytest.approx(1)


# --- which output is read ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("label", [["b", "a"], np.array([1, 0])], ids=["names", "numbers"])
def test_a_classifiers_label_is_no_choice_beside_its_scores(label):
    outputs = {"classLabel": np.array(label), "probs": np.array([[0.1, 0.9], [0.8, 0.2]])}

    assert metric("accuracy", class_names=["a", "b"]).per_item(outputs, np.array([1, 0])).tolist() == [1.0, 1.0]


def test_a_label_alone_is_read():
    assert metric("accuracy").per_item({"classLabel": np.array(["b", "a"])}, np.array(["b", "b"])).tolist() == [1, 0]


def test_of_several_scores_one_must_be_named():
    outputs = {"classLabel": np.array(["b"]), "first": np.eye(2)[:1], "second": np.eye(2)[:1]}

    with pytest.raises(UsageError, match="the model has outputs first, second; say which one with output: NAME"):
        metric("accuracy").per_item(outputs, np.array([0]))
