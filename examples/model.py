"""Load the final model of the federation that the README walks through; run it from the folder `try`."""

from fl_node.models import load_model

model = load_model("federation.deployed.toml", at="1#4", state="a")  # a torch.nn.Module in evaluation mode
print(model)
