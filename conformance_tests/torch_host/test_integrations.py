"""Lightning, Hugging Face Trainer and Accelerate train with these optimizers as with torch's own: small models, no
downloads."""

from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")

import inna_torch  # noqa: E402

OPTIMIZERS: dict[str, tuple[Any, dict[str, Any]]] = {
    "INNA": (inna_torch.INNA, {"lr": 0.09, "alpha": 0.5, "beta": 0.1}),
    "INNAprop": (inna_torch.INNAprop, {"lr": 0.01}),
}
EACH = pytest.mark.parametrize("name", OPTIMIZERS)
# What these frameworks and their own dependencies warn about is theirs.
pytestmark = [pytest.mark.nightly, pytest.mark.filterwarnings("ignore")]


def data() -> tuple[Any, Any]:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(64, 6, generator=generator)
    return x, torch.tanh(x @ torch.randn(6, 3, generator=generator))


def network() -> Any:
    torch.manual_seed(1)
    return torch.nn.Sequential(torch.nn.Linear(6, 8), torch.nn.Tanh(), torch.nn.Linear(8, 3))


def batches() -> Any:
    return torch.utils.data.DataLoader(torch.utils.data.TensorDataset(*data()), batch_size=16)


def by_hand(name: str, epochs: int) -> list[Any]:
    """Return the parameters after a plain loop, on the path that does one tensor after the other."""
    optimizer, options = OPTIMIZERS[name]
    model = network()
    instance = optimizer(model.parameters(), foreach=False, **options)
    for _ in range(epochs):
        for x, y in batches():
            instance.zero_grad()
            torch.nn.functional.mse_loss(model(x), y).backward()
            instance.step()
    return [p.detach() for p in model.parameters()]


def assert_same(model: Any, want: list[Any]) -> None:
    for p, q in zip(model.parameters(), want, strict=True):
        torch.testing.assert_close(p.detach(), q, rtol=0, atol=1e-5)


@EACH
def test_accelerate(name: str) -> None:
    accelerate = pytest.importorskip("accelerate", reason="accelerate is not installed")
    optimizer, options = OPTIMIZERS[name]
    accelerator, model = accelerate.Accelerator(cpu=True), network()
    model, instance, loader = accelerator.prepare(model, optimizer(model.parameters(), **options), batches())
    for _ in range(3):
        for x, y in loader:
            instance.zero_grad()
            accelerator.backward(torch.nn.functional.mse_loss(model(x), y))
            instance.step()
    assert_same(model, by_hand(name, 3))


@EACH
def test_lightning_with_a_resumed_checkpoint(name: str, tmp_path: Any) -> None:
    lightning = pytest.importorskip("lightning", reason="lightning is not installed")
    optimizer, options = OPTIMIZERS[name]

    class Module(lightning.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.network = network()

        def training_step(self, batch: Any, _: int) -> Any:
            x, y = batch
            return torch.nn.functional.mse_loss(self.network(x), y)

        def configure_optimizers(self) -> Any:
            return optimizer(self.parameters(), **options)

    quiet = {"accelerator": "cpu", "logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    first_half = Module()
    trainer = lightning.Trainer(max_epochs=2, enable_checkpointing=False, **quiet)
    trainer.fit(first_half, batches())
    trainer.save_checkpoint(tmp_path / "half.ckpt")
    resumed = Module()
    trainer = lightning.Trainer(max_epochs=4, enable_checkpointing=False, **quiet)
    trainer.fit(resumed, batches(), ckpt_path=str(tmp_path / "half.ckpt"))
    assert_same(first_half.network, by_hand(name, 2))
    assert_same(resumed.network, by_hand(name, 4))


@pytest.mark.parametrize("how", ["optimizer_cls_and_kwargs", "optimizers"])
@EACH
def test_hugging_face_trainer(name: str, how: str, tmp_path: Any) -> None:
    """A tiny transformer, randomly initialised, learns to repeat itself."""
    transformers = pytest.importorskip("transformers", reason="transformers is not installed")
    pytest.importorskip("accelerate", reason="accelerate, which the Trainer needs, is not installed")
    optimizer, options = OPTIMIZERS[name]
    torch.manual_seed(0)
    config = transformers.GPT2Config(
        vocab_size=16, n_positions=8, n_embd=16, n_layer=2, n_head=2, bos_token_id=0, eos_token_id=0
    )
    model = transformers.GPT2LMHeadModel(config)
    rows = [{"input_ids": torch.arange(8) % 3 + i % 2, "labels": torch.arange(8) % 3 + i % 2} for i in range(32)]
    arguments = transformers.TrainingArguments(
        output_dir=str(tmp_path),
        num_train_epochs=12,
        per_device_train_batch_size=8,
        report_to=[],
        save_strategy="no",
        logging_steps=1,
        disable_tqdm=True,
        use_cpu=True,
        seed=0,
    )
    chosen: Any = {"optimizer_cls_and_kwargs": (optimizer, options)}
    if how == "optimizers":
        chosen = {"optimizers": (optimizer(model.parameters(), **options), None)}
    trainer = transformers.Trainer(model=model, args=arguments, train_dataset=rows, **chosen)
    trainer.train()
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    assert len(losses) == 48
    assert losses[-1] < 0.8 * losses[0]
    assert isinstance(getattr(trainer.optimizer, "optimizer", trainer.optimizer), optimizer)
