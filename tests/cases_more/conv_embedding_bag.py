# SPDX-License-Identifier: Apache-2.0
import torch
import torch.nn as nn
import torch.nn.functional as F

CASE = dict(
 id='conv_embedding_bag', verdict='FAIL', culprit_op='embedding_bag',
 source_url='https://github.com/apple/coremltools/issues/2003',
 expect='')
class M(nn.Module):
    def __init__(self):
        super().__init__(); self.e = nn.EmbeddingBag(10, 4)
    def forward(self, i): return self.e(i)
def build(): torch.manual_seed(0); return M().eval()
def inputs():
    torch.manual_seed(0); return (torch.tensor([[1, 2, 3]]),)
