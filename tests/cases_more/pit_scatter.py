# SPDX-License-Identifier: Apache-2.0
import torch
import torch.nn as nn
import torch.nn.functional as F

CASE = dict(
 id='pit_scatter', verdict='WARN', culprit_op='scatter',
 source_url='https://github.com/roboflow/rf-detr/pull/1495',
 expect='')
class M(nn.Module):
    def forward(self, x, i): return x.scatter(1, i, 0.0)
def build(): torch.manual_seed(0); return M().eval()
def inputs():
    torch.manual_seed(0); return (torch.randn(2, 8), torch.tensor([[1, 3], [0, 2]]),)
